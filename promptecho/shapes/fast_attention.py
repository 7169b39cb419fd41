"""Z-Image attention in a form that compiles well on CPUs: real rotary embedding, plain matrix products.

Same values as diffusers' processor up to float rounding; only the shapes training uses it, where sequences have
96 tokens and complex numbers and the fused kernel's backward pass cost more than the products themselves.
"""

from __future__ import annotations

import torch
from diffusers import ZImageTransformer2DModel
from diffusers.models.transformers.transformer_z_image import RopeEmbedder, ZImageTransformerBlock


def _rotate(x: torch.Tensor, freqs_cis: torch.Tensor) -> torch.Tensor:
    """x [B, L, heads, D], freqs_cis [B, L, D/2, 2] as (cos, sin): rotate neighbouring pairs."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = freqs_cis.unsqueeze(2).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(3).to(x.dtype)


class PlainAttention:
    """An attention processor; `freqs_cis` comes as real pairs (see `use_plain_attention`)."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, freqs_cis=None):
        query, key, value = (
            projection(hidden_states).unflatten(-1, (attn.heads, -1))
            for projection in (attn.to_q, attn.to_k, attn.to_v)
        )
        query, key = attn.norm_q(query), attn.norm_k(key)
        if freqs_cis is not None:
            query, key = _rotate(query, freqs_cis), _rotate(key, freqs_cis)
        query, key, value = (x.to(value.dtype).transpose(1, 2) for x in (query, key, value))
        scores = (query @ key.transpose(-1, -2)).float() * query.shape[-1] ** -0.5
        if attention_mask is not None:
            scores = scores.masked_fill(~attention_mask[:, None, None, :], float("-inf"))
        output = scores.softmax(-1).to(value.dtype) @ value
        return attn.to_out[0](output.transpose(1, 2).flatten(2))


class RealRope(RopeEmbedder):
    """The rotary table as real pairs, each axis [positions, D/2 of the axis, 2]."""

    freqs_cis: list[torch.Tensor]  # type: ignore[assignment]  # the base class begins with None

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.freqs_cis[axis][ids[:, axis]] for axis in range(len(self.axes_dims))], dim=-2)


def use_plain_attention(transformer: ZImageTransformer2DModel, compile_blocks: bool = True) -> None:
    """Switch a Z-Image transformer to `PlainAttention`, its rotary table to real pairs, and compile its blocks."""
    rope = transformer.rope_embedder
    tables = rope.precompute_freqs_cis(rope.axes_dims, rope.axes_lens, theta=rope.theta)
    rope.__class__ = RealRope
    rope.freqs_cis = [torch.view_as_real(table) for table in tables]  # type: ignore[assignment]  # as above
    for block in (*transformer.noise_refiner, *transformer.context_refiner, *transformer.layers):
        assert isinstance(block, ZImageTransformerBlock), "the transformer's three lists hold nothing else"
        block.attention.set_processor(PlainAttention())  # type: ignore[arg-type]  # any callable will do
        if compile_blocks:
            block.compile(dynamic=False)
