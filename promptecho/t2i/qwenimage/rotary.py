"""Qwen-Image's rotary embedding in real arithmetic, for blocks that are compiled."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.transformers import transformer_qwenimage
from diffusers.models.transformers.transformer_qwenimage import QwenEmbedRope

from promptecho.t2i.fused import rotate

_complex = transformer_qwenimage.apply_rotary_emb_qwen


class RealQwenEmbedRope(QwenEmbedRope):
    """Cosines and sines [tokens, D / 2, 2] where diffusers' has complex numbers [tokens, D / 2]."""

    def forward(self, *inputs: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        image, text = super().forward(*inputs, **options)
        return torch.view_as_real(image), torch.view_as_real(text)


def _rotary(x: torch.Tensor, freqs_cis: Any, use_real: bool = True, use_real_unbind_dim: int = -1) -> Any:
    if torch.is_tensor(freqs_cis) and not freqs_cis.is_complex():
        return rotate(x, freqs_cis)
    return _complex(x, freqs_cis, use_real, use_real_unbind_dim)


def use_real_rope(transformer: Any) -> None:
    """Have `transformer` compute its rotary embeddings in real arithmetic, in place."""
    if type(transformer.pos_embed) is not QwenEmbedRope:
        return
    transformer.pos_embed.__class__ = RealQwenEmbedRope
    # The processor finds the rotation by this name; with complex numbers it does what it did.
    transformer_qwenimage.apply_rotary_emb_qwen = _rotary
