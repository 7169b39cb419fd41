"""Which device a process computes on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from promptecho.cluster.slurm_env import ranks_of_step
from promptecho.errors import ModelError

if TYPE_CHECKING:
    import torch


def choose_device(name: str) -> str:
    """`auto` is this rank's GPU where there is one, else the CPU; any other name is checked.

    Raises:
        ModelError: a GPU was asked for that this machine does not have.
    """
    import torch

    if name == "auto":
        ranks = {**os.environ, **ranks_of_step(os.environ)}
        return f"cuda:{gpu_of_rank(ranks, torch.cuda.device_count())}" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"--device {name}: this machine has no GPU that torch can use; use --device cpu")
    return name


def gpu_of_rank(environ: Mapping[str, str], visible: int) -> int:
    """Index of this rank's GPU among the `visible` ones.

    A launcher either shows every rank all GPUs of its node, then LOCAL_RANK counts them; or binds each rank to its own
    (`srun --gpus-per-task`), which is index 0 whatever LOCAL_RANK is. Beyond the visible ones, counting starts over.
    """
    return int(environ.get("LOCAL_RANK", 0)) % visible


def on_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`values` on `device`; from the host to a GPU without a wait for what the GPU still has to do."""
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)
