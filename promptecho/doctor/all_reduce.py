"""How fast ranks add up a tensor: runs as one process for each GPU, as `python -m promptecho.doctor.all_reduce`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from promptecho.files import write_json

MEGABYTES = 256
TIMES = 5


def measure(backend: str, megabytes: int = MEGABYTES, times: int = TIMES) -> dict[str, Any]:
    """Median GB/s of adding up `megabytes` over all ranks, as rank, world size and address stand in the environment.

    `bus_gb_s` is what each GPU's link carries in a ring: 2 (n - 1) / n of the tensor in the time of one sum
    (NVIDIA's nccl-tests, doc/PERFORMANCE.md).
    """
    import torch
    import torch.distributed as dist

    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if backend == "nccl" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(backend, rank=rank, world_size=world)
    try:
        tensor = torch.ones(megabytes * 1_000_000 // 4, device=device)
        seconds = []
        for _ in range(times + 1):  # the first builds the connections
            tensor.fill_(1.0)
            _wait(device)
            dist.barrier()
            start = time.perf_counter()
            dist.all_reduce(tensor)
            _wait(device)
            seconds.append(time.perf_counter() - start)
        right = bool((tensor == world).all())
    finally:
        dist.destroy_process_group()
    median = sorted(seconds[1:])[times // 2]
    gb_s = megabytes / 1000 / median
    bus = gb_s * 2 * (world - 1) / world
    return {"ranks": world, "backend": backend, "right": right, "gb_s": gb_s, "bus_gb_s": bus}


def _wait(device: Any) -> None:
    """For what was started on a GPU."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """`all_reduce BACKEND FILE [MEGABYTES]`: rank 0 writes FILE."""
    found = measure(sys.argv[1], *map(int, sys.argv[3:4]))
    if os.environ["RANK"] == "0":
        write_json(Path(sys.argv[2]), found)


if __name__ == "__main__":
    main()
