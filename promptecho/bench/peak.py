"""The card's own speed: matrix products and copies. Needs torch alone."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

SIZES = {"cuda": (4096, 8192, 16384), "cpu": (1024, 2048)}  # of square matrices; large enough for the best speed
COPIED = {"cuda": 1 << 30, "cpu": 1 << 26}  # bytes
ROUNDS = 10


def peak(rows: Path, device_name: str, threads: int | None, *, tiny: bool = False) -> None:
    """Square products in bfloat16 on a GPU, in float32 on a CPU, and copies in memory."""
    if threads:
        torch.set_num_threads(threads)
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device_name == "auto" else device_name
    device = torch.device(name)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with rows.open("a", encoding="utf-8") as file:

        def write(row: dict[str, Any]) -> None:
            file.write(json.dumps(row) + "\n")
            file.flush()

        write({"facts": machine(device)})
        for size in (256,) if tiny else SIZES[device.type]:
            a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
            times = timed(partial(torch.matmul, a, b), device)
            write({
                "what": f"{size} x {size} x {size}, {str(dtype).removeprefix('torch.')}", "seconds": times,
                "tflops": 2 * size**3 / min(times) / 1e12, "is_peak": True, "remarks": "TFLOP/s: of the fastest",
            })  # fmt: skip
        count = (1 << 20 if tiny else COPIED[device.type]) // 2
        source = torch.zeros(count, dtype=torch.bfloat16, device=device)
        target = torch.empty_like(source)
        times = timed(lambda: target.copy_(source), device)
        write({"what": f"copy of {2 * count / 1e9:.2g} GB", "seconds": times,
               "remarks": f"{4 * count / min(times) / 1e9:.0f} GB/s, read and written"})  # fmt: skip


def timed(code: Callable[[], Any], device: torch.device) -> list[float]:
    """Seconds on the clock of each round after a first one."""
    found = []
    for number in range(ROUNDS + 1):
        begun = time.perf_counter()
        code()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number:
            found.append(time.perf_counter() - begun)
    return found


def machine(device: torch.device) -> dict[str, Any]:
    """The machine, for the record."""
    facts = {"torch": torch.__version__, "python": platform.python_version(), "threads": torch.get_num_threads()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        more = {"memory_gb": round(properties.total_memory / 1e9, 1), "cuda": torch.version.cuda}
        return {"device": properties.name, **more, "cudnn": torch.backends.cudnn.version(), **facts}
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = models[0].split(":")[1].strip() if models else platform.machine()
    return {"device": f"CPU, {name}, {len(models)} cores", **facts}
