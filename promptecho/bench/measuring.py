"""Time and memory of a piece of code on a device."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from promptecho.train.meter import Meter


@dataclass(frozen=True)
class Taken:
    """One run: `seconds` on the clock, `cpu_seconds` of this process on all its threads, peak memory in GB, result."""

    seconds: float
    cpu_seconds: float
    peak_gb: float
    value: Any

    def time_on(self, device: torch.device) -> float:
        """What is compared: on a GPU the clock; on a CPU, which other work may share, this process's own time."""
        return self.seconds if device.type == "cuda" else self.cpu_seconds


def take(code: Callable[[], Any], device: torch.device) -> Taken:
    """Run once; memory as training measures it (promptecho/train/meter.py)."""
    meter, cpu = Meter(device), time.process_time()
    with meter("all"):
        value = code()
    return Taken(meter.seconds["all"], time.process_time() - cpu, meter.memory["all"], value)


def taken(code: Callable[[], Any], device: torch.device, rounds: int) -> tuple[Taken, list[Taken]]:
    """The first run, which warms up and compiles, and `rounds` more."""
    return take(code, device), [take(code, device) for _ in range(rounds)]


def free(device: torch.device) -> None:
    """Give back what objects held that nothing names any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def median_of(runs: list[Taken], device: torch.device) -> float:
    """Seconds."""
    return statistics.median(run.time_on(device) for run in runs)


def ratios(before: list[Taken], after: list[Taken], device: torch.device) -> list[float]:
    """Time of `before` over time of `after`, round by round."""
    return [x.time_on(device) / y.time_on(device) for x, y in zip(before, after, strict=True)]
