"""Z-Image's rotary embedding in real arithmetic, for blocks that are compiled."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_z_image import RopeEmbedder, ZSingleStreamAttnProcessor

from promptecho.t2i.fused import rotate
from promptecho.t2i.lora_linear import together


class RealRopeEmbedder(RopeEmbedder):
    """Cosines and sines [tokens, D / 2, 2] where diffusers' has complex numbers [tokens, D / 2]."""

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.view_as_real(super().__call__(ids))


class RealRopeAttention(ZSingleStreamAttnProcessor):
    """Attention of a block that gets cosines and sines."""

    def __call__(
        self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None, freqs_cis: torch.Tensor | None = None,
    ) -> torch.Tensor:  # fmt: skip
        heads = (attn.heads, -1)
        projected = together(hidden_states, attn.to_q, attn.to_k, attn.to_v)
        query, key, value = (one.unflatten(-1, heads) for one in projected)
        if attn.norm_q is not None:
            query, key = attn.norm_q(query), attn.norm_k(key)
        if freqs_cis is not None:
            query, key = rotate(query, freqs_cis), rotate(key, freqs_cis)
        if attention_mask is not None and attention_mask.ndim == 2:
            attention_mask = attention_mask[:, None, None, :]
        output = dispatch_attention_fn(
            query, key, value, attn_mask=attention_mask, backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )  # fmt: skip
        output = output.flatten(2, 3).to(query.dtype)
        for layer in attn.to_out:
            output = layer(output)
        return output


def use_real_rope(transformer: Any) -> None:
    """Have `transformer` compute its rotary embeddings in real arithmetic, in place."""
    if isinstance(transformer.rope_embedder, RealRopeEmbedder):
        return
    transformer.rope_embedder.__class__ = RealRopeEmbedder
    for module in transformer.modules():
        processor = getattr(module, "processor", None)
        if isinstance(processor, ZSingleStreamAttnProcessor):  # what was chosen in it stays
            processor.__class__ = RealRopeAttention
