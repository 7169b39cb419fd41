"""Things that ranks do when one of them must stop, in forked processes that share one import; prints a line for each.

left: rank 0 keeps the store and leaves with it, while rank 1, which has agreed to leave, still waits for a third: what
rank 1 says, and its exit code. idle: two ranks share a sharded VLM, and rank 0 hears of a request in a pass that it
makes for the sake of rank 1: how many of its own 20 passes it still makes, and how many of its 5 rank 1 does.
failed: two ranks fail alike while they load, and the launcher ends the third: exit codes, and what was said.
"""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta

import tiny_vlm
import torch
import torch.distributed as dist

from promptecho.errors import DataError
from promptecho.train import stop
from promptecho.train.launch import Launch
from promptecho.train.ranks import named
from promptecho.vlm import load_vlm
from promptecho.vlm.sharding import shard_vlm
from promptecho.vlm.turns import _tiny_inputs

LIMIT = timedelta(seconds=120)


def left() -> None:
    store = dist.TCPStore("127.0.0.1", 0, 3, True, timeout=LIMIT, wait_for_workers=False)
    child = os.fork()
    if child == 0:
        mine = dist.TCPStore("127.0.0.1", store.port, 3, False, timeout=LIMIT, wait_for_workers=False)
        check = stop.StopCheck(None, Launch(1, 3, 3, mine), lambda: os.write(1, b"told "))
        check.install()
        with check.loading():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
            os._exit(3)
    store.wait([stop.STAGE])
    time.sleep(0.5)
    del store
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def failed() -> None:
    store = dist.TCPStore("127.0.0.1", 0, 4, True, timeout=LIMIT, wait_for_workers=False)
    output, said = os.pipe()
    children = []
    for rank in (1, 2, 3):
        children.append(os.fork())
        if children[-1] == 0:
            os.dup2(said, 2)
            mine = dist.TCPStore("127.0.0.1", store.port, 4, False, timeout=LIMIT, wait_for_workers=False)
            check = stop.StopCheck(None, Launch(rank, 4, None, mine))
            check.install()
            try:
                with named(rank, 4, mine), check.loading():
                    if rank < 3:
                        raise DataError("captions.h5: prompt 7 is too long")
                    mine.set("ready", "")
                    time.sleep(20)
            except DataError as error:
                os.write(2, "".join(f"{line}\n" for line in str(error).splitlines()).encode())
                os._exit(1)
            os._exit(3)
    os.close(said)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children[:2]]
    store.wait(["ready"])
    os.kill(children[2], signal.SIGTERM)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(children[2], 0)[1]))
    with os.fdopen(output) as lines:
        print(*codes, "|".join(line.partition("): ")[2].strip() or line for line in lines), flush=True)


def idle() -> None:
    vlm = load_vlm(str(tiny_vlm.shared_folder()))
    store = dist.TCPStore("127.0.0.1", 0, 2, True, timeout=LIMIT, wait_for_workers=False)
    ends = [os.pipe(), os.pipe()]
    for rank, (_, end) in enumerate(ends):
        if os.fork() == 0:
            mine = dist.TCPStore("127.0.0.1", store.port, 2, False, timeout=LIMIT, wait_for_workers=False)
            dist.init_process_group("gloo", store=mine, rank=rank, world_size=2, timeout=LIMIT)
            os.write(end, str(passes(shard_vlm(vlm, dist.group.WORLD), rank)).encode())
            os._exit(0)
        os.close(end)
    print(*(os.read(end, 9).decode() for end, _ in ends), flush=True)


def passes(vlm, rank: int) -> int:
    """Rank 1 brings images, which come first: rank 0, with texts, idles for it, and hears at its third look."""
    with vlm.in_step():
        pass
    check, looks, made = stop.StopCheck(None), [], 0
    stop.POLL_S = 0
    check._seen = lambda: looks.append(0) or (rank == 0 and len(looks) == 3)
    check.watch_passes(vlm.model)
    inputs = _tiny_inputs(vlm, with_image=rank == 1)
    with torch.no_grad(), check.listening(), vlm.in_step():
        for _ in range(5 if rank else 20):
            vlm.model(**inputs)
            made += 1
    dist.barrier()  # nobody waits for ever
    assert check.heard == (rank == 0)
    return made


if __name__ == "__main__":
    left()
    failed()
    idle()
