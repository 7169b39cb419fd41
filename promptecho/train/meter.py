"""Time and memory of the phases of an iteration."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from promptecho.models.place import staging_seconds

PEAK_RESET = Path("/proc/self/clear_refs")  # writing 5 starts the peak of resident memory anew


class Meter:
    """`lap(phase)` ends a phase: seconds since the last lap, and memory in GB.

    Memory is the phase's peak: of allocated tensors on a GPU, else of the process's resident memory.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.laps: dict[str, float] = {}
        self.memory: dict[str, float] = {}
        self._reset()

    def _reset(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            PEAK_RESET.write_text("5")
        self._last = time.monotonic()

    def lap(self, phase: str) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.memory[phase] = torch.cuda.max_memory_allocated(self.device) / 1e9
        else:
            self.memory[phase] = peak_resident_gb()
        self.laps[phase] = self.laps.get(phase, 0.0) + time.monotonic() - self._last
        self._reset()

    @property
    def seconds(self) -> float:
        return sum(self.laps.values())

    def metrics(self) -> dict[str, float]:
        """Keys seconds_PHASE, seconds and memory_gb_PHASE."""
        return {
            **{f"seconds_{phase}": round(value, 3) for phase, value in self.laps.items()},
            "seconds": round(self.seconds, 3),
            **{f"memory_gb_{phase}": round(value, 3) for phase, value in self.memory.items()},
        }


class LoadTimes:
    """Seconds until a segment's models are loaded: `with times("t2i"): ...`; staging is counted apart."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        start, staging = time.monotonic(), staging_seconds()
        yield
        staged = staging_seconds() - staging
        self.laps[what] = time.monotonic() - start - staged
        self.laps["staging"] = self.laps.get("staging", 0.0) + staged

    def metrics(self) -> dict[str, float]:
        """Keys seconds_load_t2i, seconds_load_vlm, seconds_load_staging."""
        return {f"seconds_load_{what}": round(value, 3) for what, value in self.laps.items()}

    def describe(self) -> str:
        """One line."""
        return ", ".join(f"{what} {value:.1f} s" for what, value in self.laps.items())


def peak_resident_gb() -> float:
    """Peak of this process's resident memory since the last reset, in GB (Linux)."""
    return _status_gb("VmHWM")


def resident_gb() -> float:
    """This process's resident memory, in GB (Linux)."""
    return _status_gb("VmRSS")


def _status_gb(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024 / 1e9
    raise OSError(f"/proc/self/status has no {key} line")
