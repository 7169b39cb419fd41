"""Ranks on this machine that share one import of torch and the libraries around it: what a test of ranks waits for.

    python forked_ranks.py N [NAME=VALUE ...] -m -- promptecho train ...

Like torchrun, but that processes are forked from one that has imported everything, which takes ten seconds of a core
each; where the launcher itself is tested, torchrun is used. The first process that fails ends the others.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback


def preload() -> None:
    """What `promptecho train` imports; nothing of it may compute, since threads do not survive a fork."""
    import promptecho.rewards.registry
    import promptecho.t2i.qwenimage
    import promptecho.t2i.zimage
    import promptecho.train.loop
    import promptecho.vlm  # noqa: F401
    from promptecho.train.engine import import_deepspeed

    import_deepspeed()


def rank_main(rank: int, variables: dict[str, str], arguments: list[str]) -> int:
    from promptecho.cli import main

    local = rank % int(variables["LOCAL_WORLD_SIZE"])
    os.environ.update(variables, RANK=str(rank), LOCAL_RANK=str(local))
    sys.argv = arguments
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> int:
    n, rest = int(sys.argv[1]), sys.argv[2:]
    own, arguments = rest[: rest.index("-m")], rest[rest.index("-m") + 2 :]
    preload()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {"WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    variables |= dict(word.split("=", 1) for word in own)
    children: list[int] = []
    for rank in range(n):
        child = os.fork()
        if child == 0:
            code = rank_main(rank, variables, arguments)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        children.append(child)
    failed = False
    while children:
        child, status = os.wait()
        children.remove(child)
        if status and not failed:
            failed = True
            for other in children:
                os.kill(other, signal.SIGTERM)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
