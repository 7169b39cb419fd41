"""A rank that loads a sharded VLM and tells how much of its weight files it has read.

    python read_shares.py MODEL OUT

Pages of a mapped file that this process has touched are its Rss in /proc/self/smaps.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from promptecho.files import write_json
from promptecho.vlm import load_vlm
from promptecho.vlm.sharding import lies_in_files, load_in_turn, shard_vlm


def resident(folder: str) -> int:
    """Bytes of the folder's weight files that this process has touched."""
    text = Path("/proc/self/smaps").read_text()
    found = re.findall(rf"{re.escape(folder)}/\S+\.safetensors\n(?:\S+: .*\n)*?Rss: +(\d+) kB", text)
    return 1024 * sum(map(int, found))


def main() -> None:
    folder, out = sys.argv[1:]
    dist.init_process_group("gloo")
    kept, turns, light = [], [], []

    def load() -> object:
        vlm = load_vlm(folder)
        light.append(lies_in_files(vlm.model))
        kept.extend(p.data for p in vlm.model.parameters())  # so that the files stay mapped
        return shard_vlm(vlm, dist.group.WORLD, torch.device("cpu"))

    sharded = load_in_turn(load, dist.group.WORLD, turns.append, lambda: light[0])
    read = resident(folder)
    with sharded.in_step():
        pass
    whole = [tuple(p.full_tensor().shape) for p in sharded.model.parameters()]
    same = all(torch.equal(p.full_tensor(), k) for p, k in zip(sharded.model.parameters(), kept, strict=True))
    facts = {"read": read, "turns": turns, "light": light, "weights": len(whole), "same": same}
    write_json(Path(out) / f"{dist.get_rank()}.json", facts)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
