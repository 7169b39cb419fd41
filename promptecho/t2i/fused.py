"""Parts of diffusers' transformers in a form that is one kernel, or that compiles into one, with the same result."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.normalization import RMSNorm

from promptecho.t2i.lora_linear import together

IMAGE, TEXT = ("to_q", "to_k", "to_v"), ("add_q_proj", "add_k_proj", "add_v_proj")


class FusedRMSNorm(RMSNorm):
    """torch's own RMSNorm: the same bits in float32 on a CPU; in bfloat16 it rounds once instead of three times."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        assert self.weight is not None, "`fuse_norms` takes those that have one"
        if hidden_states.dtype != self.weight.dtype:
            return super().forward(hidden_states)
        return torch.nn.functional.rms_norm(hidden_states, tuple(self.dim), self.weight, self.eps)


def fuse_norms(model: torch.nn.Module) -> None:
    """Have the RMSNorms of `model` that are diffusers' own, with a weight alone, computed by torch."""
    for module in model.modules():
        if type(module) is RMSNorm and module.weight is not None and module.bias is None:
            module.__class__ = FusedRMSNorm


def rotate(x: torch.Tensor, freqs: torch.Tensor) -> torch.Tensor:
    """Rotary embedding in real arithmetic, because complex numbers are not compiled.

    Args:
        x: [N, tokens, heads, D].
        freqs: cosines and sines, [N, tokens, D / 2, 2], or without N.
    """
    pairs = x.float().unflatten(-1, (-1, 2))
    cos, sin = freqs.unsqueeze(-3).unbind(-1)
    real, imaginary = pairs.unbind(-1)
    turned = torch.stack((real * cos - imaginary * sin, real * sin + imaginary * cos), dim=-1)
    return turned.flatten(-2).type_as(x)


class Projected:
    """An attention module of diffusers whose projections are there: computed `together` where they read the same input.

    A processor that gets it in place of the module calls `to_q`, `to_k` and `to_v` with `hidden_states` as they are
    here, and `add_q_proj`, `add_k_proj` and `add_v_proj` with `text`.
    """

    def __init__(self, attn: Any, hidden_states: torch.Tensor, text: torch.Tensor | None = None) -> None:
        self.attn = attn
        self.results: dict[str, torch.Tensor] = {}
        for names, x in ((IMAGE, hidden_states), (TEXT, text)):
            if x is not None:
                self.results |= zip(names, together(x, *(getattr(attn, name) for name in names)), strict=True)

    def __getattr__(self, name: str) -> Any:
        if name in self.results:
            return lambda _: self.results[name]
        return getattr(self.attn, name)
