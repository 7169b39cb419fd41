"""GPU models by name: the vendors' figures, from `gpus.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from promptecho.errors import ConfigError
from promptecho.files import read_json

FILE = Path(__file__).with_name("gpus.json")
OTHER = {"tf32": 0.5, "float32": 1 / 16}  # of the bfloat16 rate, for a GPU that is not listed
TF32_KINDS = ("convolution float32",)  # what PyTorch computes in TF32 by default


@dataclass(frozen=True)
class Gpu:
    """One GPU: memory in GB (1e9 bytes), dense TFLOP/s by number format, bandwidths in GB/s and one direction.

    `link_gb_s` leads to the other GPUs of its node, `host_gb_s` to the host's memory.
    """

    name: str
    memory_gb: float
    bfloat16: float
    tf32: float
    float32: float
    memory_gb_s: float
    link_gb_s: float
    host_gb_s: float
    source: str
    devices: Sequence[str] = ()  # what CUDA calls it

    def rate(self, kind: str) -> float:
        """Peak FLOP/s of operators of a kind, as traces name it."""
        if kind.endswith("16"):
            return 1e12 * self.bfloat16
        return 1e12 * (self.tf32 if kind in TF32_KINDS else self.float32)


def known() -> dict[str, Gpu]:
    """All listed GPUs."""
    return {name: Gpu(**facts) for name, facts in read_json(FILE)["gpus"].items()}


def of_device(device_name: str) -> str | None:
    """The listed GPU (its key) that CUDA calls by this name; None where no datasheet of it is here. Cards of the same
    chip differ (SXM, PCIe, NVL, a part of one by MIG), so only the very name counts."""
    return next((name for name, gpu in known().items() if device_name in gpu.devices), None)


def find_gpu(name: str, memory_gb: float | None = None, tflops: float | None = None) -> Gpu:
    """The GPU `name`, with its memory or its bfloat16 rate replaced.

    A name that is not listed needs both; its other figures are then an H100's, its other rates in usual proportions. A
    listed one with another figure is no longer that card, and is not named so.

    Raises:
        ConfigError: not listed, and a figure is missing.
    """
    listed = known()
    gpu = listed.get(name.lower())
    if gpu is None:
        if memory_gb is None or tflops is None:
            raise ConfigError(
                f"--gpu {name}: not listed (known: {', '.join(listed)}); give --gpu-memory-gb and --gpu-tflops (dense "
                "bfloat16) from its datasheet"
            )
        gpu = replace(listed["h100"], name=name, devices=(), source="command line; bandwidths of an H100")
    else:
        told = {"memory": memory_gb not in (None, gpu.memory_gb), "FLOP/s": tflops not in (None, gpu.bfloat16)}
        if changed := " and ".join(what for what, is_other in told.items() if is_other):
            source = f"{changed} from the command line, the rest: {gpu.source}"
            gpu = replace(gpu, name=f"GPU like {gpu.name} but for {changed}", devices=(), source=source)
        tflops = tflops if told["FLOP/s"] else None  # the card's own figure leaves its other rates
    if memory_gb is not None:
        gpu = replace(gpu, memory_gb=memory_gb)
    if tflops is not None:
        rates: dict[str, Any] = {kind: tflops * share for kind, share in OTHER.items()}
        gpu = replace(gpu, bfloat16=tflops, **rates)
    return gpu
