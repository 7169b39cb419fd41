"""Which device a process computes on."""

from __future__ import annotations

import os

from promptecho.errors import ModelError


def choose_device(name: str) -> str:
    """`auto` is this rank's GPU where there is one, else the CPU; any other name is checked.

    Raises:
        ModelError: a GPU was asked for that this machine does not have.
    """
    import torch

    if name == "auto":
        return f"cuda:{int(os.environ.get('LOCAL_RANK', 0))}" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"--device {name}: this machine has no GPU that torch can use; use --device cpu")
    return name
