"""Layers of Z-Image's block that read the same input, computed together."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.transformers.transformer_z_image import FeedForward, ZSingleStreamAttnProcessor

from promptecho.t2i.fused import Projected
from promptecho.t2i.lora_linear import together


class SharedInputAttention(ZSingleStreamAttnProcessor):
    """Its q, k and v. (diffusers passes on only what the signature names.)"""

    def __call__(
        self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None, freqs_cis: torch.Tensor | None = None,
    ) -> torch.Tensor:  # fmt: skip
        attn = Projected(attn, hidden_states)
        return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, freqs_cis)


class SharedInputFeedForward(FeedForward):
    """Its two layers under the SwiGLU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w2(self._forward_silu_gating(*together(x, self.w1, self.w3)))


def share_inputs(transformer: Any) -> None:
    """Have the blocks of `transformer` compute them so, in place."""
    for module in transformer.modules():
        if type(module) is FeedForward:
            module.__class__ = SharedInputFeedForward
        processor = getattr(module, "processor", None)
        if type(processor) is ZSingleStreamAttnProcessor:
            processor.__class__ = SharedInputAttention
