"""Layers of Stable Diffusion 3's block that read the same input, computed together."""

from __future__ import annotations

from typing import Any

from diffusers.models.attention_processor import JointAttnProcessor2_0

from promptecho.t2i.fused import Projected


class SharedInputMMDiTAttention(JointAttnProcessor2_0):
    """Its q, k and v of the image, and those of the text. (diffusers passes on only what the signature names.)"""

    def __call__(
        self, attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, attention_mask: Any = None
    ) -> Any:
        attn = Projected(attn, hidden_states, encoder_hidden_states)
        return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask)


def share_inputs(transformer: Any) -> None:
    """Have the blocks of `transformer` compute them so, in place."""
    for module in transformer.modules():
        processor = getattr(module, "processor", None)
        if type(processor) is JointAttnProcessor2_0:
            processor.__class__ = SharedInputMMDiTAttention
