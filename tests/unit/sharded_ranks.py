"""Two ranks that share a tiny VLM, forked from one process; prints a line of JSON for each of them.

    python sharded_ranks.py

Each has images of its own, rank 0 two more than rank 1, and gets rewards by the whole model, by its share of it, and by
its share behind a pass that failed half-way on rank 0. `ahead` is, for each place in the order of a pass, how many
further blocks were gathered, or being gathered, when the block there began to compute.
"""

from __future__ import annotations

import json
import os
import traceback
from datetime import timedelta

import tiny_vlm
import torch
import torch.distributed as dist
from PIL import Image

from promptecho.vlm import label_log_probs, load_vlm
from promptecho.vlm.model import Vlm
from promptecho.vlm.sharding import find_blocks, shard_vlm
from promptecho.vlm.turns import Turns

LIMIT = timedelta(seconds=30)
LABELS = ["A red circle.", "a blue square above it", "Two stars.", "three rings", "A cross."]


def rewards(vlm: Vlm, rank: int) -> list[list[float]]:
    """Log-probabilities of the labels of this rank's images, in batches of two."""
    mine = range(3) if rank == 0 else range(3, 5)
    images = [Image.new("RGB", (32, 32 + 8 * i), (40 * i, 90, 200)) for i in mine]
    found = label_log_probs(vlm, images, [LABELS[i] for i in mine], "Describe this image.", batch_size=2)
    return [row.log_probs.tolist() for row in found]


def watch_gathering(vlm: Vlm, blocks: list[torch.nn.Module]) -> set[tuple[int, int]]:
    """(place in the order, further blocks gathered or being gathered) of all blocks that begin to compute."""
    seen: set[tuple[int, int]] = set()
    turns: Turns = vlm.in_step.__self__

    def note(block: torch.nn.Module, *_: object) -> None:
        if turns.kind in turns.order:
            place = turns.order[turns.kind].index(block)
            seen.add((place, len(turns.gathered) - 1 - place))

    for block in blocks:  # behind FSDP's own hook, before the block computes
        block.register_forward_pre_hook(note)
    return seen


def fails_half_way(vlm: Vlm, rank: int, block: torch.nn.Module) -> str:
    """Rank 0's pass ends in this block; rank 1's own passes must not notice."""

    def fail(*_: object) -> None:
        handle.remove()
        raise ValueError("half-way")

    handle = block.register_forward_pre_hook(fail) if rank == 0 else None
    try:
        with vlm.in_step():
            rewards(vlm, rank)
    except ValueError as error:
        return str(error)
    return ""


def facts(rank: int, store: dist.Store) -> dict:
    vlm = load_vlm(str(tiny_vlm.shared_folder()))
    whole = rewards(vlm, rank)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=LIMIT)
    blocks = find_blocks(vlm.model)  # by class names, which FSDP changes
    sharded = shard_vlm(vlm, dist.group.WORLD)
    seen = watch_gathering(sharded, blocks)
    with sharded.in_step():
        same = [rewards(sharded, rank) == whole]
    said = fails_half_way(sharded, rank, blocks[2])
    with sharded.in_step():
        same.append(rewards(sharded, rank) == whole)
    dist.barrier()
    return {"same": same, "said": said, "ahead": sorted(seen)}


def main() -> None:
    tiny_vlm.shared_folder()
    master = dist.TCPStore("127.0.0.1", 0, 2, True, timeout=LIMIT, wait_for_workers=False)
    ends = []
    for rank in range(2):
        ends.append(os.pipe())
        if os.fork() == 0:
            store = dist.TCPStore("127.0.0.1", master.port, 2, False, timeout=LIMIT, wait_for_workers=False)
            try:
                os.write(ends[rank][1], json.dumps(facts(rank, store)).encode())
            except BaseException:
                traceback.print_exc()
            os._exit(0)
        os.close(ends[rank][1])
    for end, _ in ends:
        with os.fdopen(end) as told:
            print(told.read(), flush=True)


if __name__ == "__main__":
    main()
