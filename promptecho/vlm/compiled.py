"""A VLM whose language model's layers are compiled, for rewards that read a text at once."""

from __future__ import annotations

from typing import Any

import torch

from promptecho.compute.blocks import compile_blocks
from promptecho.vlm.model import Vlm


def compile_vlm(vlm: Vlm, backend: str = "inductor") -> int:
    """Compile the decoder layers of `vlm`, in place; returns how many there are.

    Where text is written token by token, and in the vision tower, whose loops over images would be compiled anew for
    each number of them, all is as before. Call it before the model is sharded.
    """
    return compile_blocks(decoder_layers(vlm.model), backend)


def decoder_layers(model: Any) -> list[torch.nn.Module]:
    """The layers of a VLM's language model; none where its decoder has no `layers`."""
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    return list(getattr(decoder, "layers", None) or [])
