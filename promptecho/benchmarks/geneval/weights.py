"""Load the frozen models of GenEval's perception: safetensors only, float32, complete or not at all."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from typing import Any

import torch

from promptecho.errors import ModelError

WHERE = "without internet, download it to a folder that holds mask2former/ and clip/, and name that folder as the model"


def one_line(error: BaseException) -> str:
    """An exception's text on one line, not too long."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def load_frozen(family: Any, path: str, what: str, device: str) -> Any:
    """`family.from_pretrained(path)` in eval mode on `device`, without gradients.

    The library fills weights that a checkpoint lacks with random ones and only warns; here that is an error.

    Raises:
        ModelError: the model is not available, lacks weights, or the device can't take it.
    """
    import transformers

    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    try:
        model, report = family.from_pretrained(
            path, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # the library raises anything from OSError to SafetensorError; all mean the same here
        raise ModelError(f"{path}: cannot load the {what} ({one_line(error)}); {WHERE}") from error
    weights = {name for name, _ in model.named_parameters()}
    if missing := sorted(weights & set(report["missing_keys"])):
        raise ModelError(
            f"{path}: {len(missing)} weights of the {what} are missing, {missing[0]} among them; download the whole"
            f" {family.__name__} checkpoint again"
        )
    model.requires_grad_(False)
    model.eval()
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"{path}: cannot move the {what} to {device} ({one_line(error)})") from error


def exact_float32() -> AbstractContextManager:
    """Convolutions in float32 on any GPU. By default cuDNN rounds them to TF32 where the GPU has it, and scores near
    a threshold would depend on the kind of GPU."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
