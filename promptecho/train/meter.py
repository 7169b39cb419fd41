"""Time and memory of the phases of an iteration, or of loading."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from promptecho.compute.blocks import compilations, compiling
from promptecho.models.locate import staging_seconds
from promptecho.phases import Phase

PEAK_RESET = Path("/proc/self/clear_refs")  # writing 5 resets the peak of resident memory


class Meter:
    """`with meter(phase): ...` as often as a phase comes: its seconds, without those of staging, and its peak in GB.

    Memory is that of allocated tensors on a GPU, else the process's resident memory. What lies between two phases
    counts for none, but for the whole.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = {}
        self.memory: dict[str, float] = {}
        self.staging = 0.0
        self._compilations = compilations()
        self._begun = time.monotonic()

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            PEAK_RESET.write_text("5")
        begun, staging = time.monotonic(), staging_seconds()
        yield
        if on_gpu:
            torch.cuda.synchronize(self.device)
        staged = staging_seconds() - staging
        self.staging += staged
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.monotonic() - begun - staged
        peak = torch.cuda.max_memory_allocated(self.device) / 1e9 if on_gpu else peak_resident_gb()
        self.memory[phase] = max(self.memory.get(phase, 0.0), peak)

    def metrics(self, images: int) -> dict[str, float]:
        """Keys seconds_PHASE, seconds, memory_gb_PHASE and images_per_s, of an iteration of so many images, and where
        blocks are compiled compilations, of this process."""
        whole = time.monotonic() - self._begun
        return {
            **{f"seconds_{phase}": round(value, 3) for phase, value in self.seconds.items()},
            "seconds": round(whole, 3),
            **{f"memory_gb_{phase}": round(value, 3) for phase, value in self.memory.items()},
            "images_per_s": round(images / whole, 4),
            **({"compilations": compilations() - self._compilations} if compiling() else {}),
        }

    def load_metrics(self) -> dict[str, float]:
        """Keys seconds_load_t2i, seconds_load_staging, seconds_load_vlm."""
        t2i, vlm = (self.seconds[phase] for phase in (Phase.LOAD_T2I, Phase.LOAD_VLM))
        found = {Phase.LOAD_T2I: t2i, "load_staging": self.staging, Phase.LOAD_VLM: vlm}
        return {f"seconds_{key}": round(value, 3) for key, value in found.items()}


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
