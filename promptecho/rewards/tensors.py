"""Files of tensors: safetensors, or what torch.save wrote, of which tensors alone are read."""

from __future__ import annotations

from pathlib import Path

import torch

from promptecho.errors import ModelError
from promptecho.pointers import pointer_problem


def read_tensors(path: Path, where: str, what: str) -> dict[str, torch.Tensor]:
    """The tensors of a file by name, on the CPU. A pickle that would run code is refused.

    Args:
        where: key and file, for messages.
        what: the file holds, likewise.

    Raises:
        ModelError: there is no such file, it cannot be read, or it holds something else.
    """
    if problem := pointer_problem(path):
        raise ModelError(f"{where}: {problem}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of zip files, pickles, safetensors, and of what they hold
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{where}: cannot read {what} ({reason})") from error
    if not isinstance(found, dict) or not all(isinstance(one, torch.Tensor) for one in found.values()):
        raise ModelError(f"{where}: cannot read {what} (it does not hold tensors by name alone)")
    return found
