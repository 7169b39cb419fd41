"""Layers of Qwen-Image's block that read the same input, computed together."""

from __future__ import annotations

from typing import Any

from diffusers.models.transformers.transformer_qwenimage import QwenDoubleStreamAttnProcessor2_0

from promptecho.t2i.fused import Projected


class SharedInputJointAttention(QwenDoubleStreamAttnProcessor2_0):
    """Its q, k and v of the image, and those of the text. (diffusers passes on only what the signature names.)"""

    def __call__(
        self, attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, encoder_hidden_states_mask: Any = None,
        attention_mask: Any = None, image_rotary_emb: Any = None,
    ) -> Any:  # fmt: skip
        attn = Projected(attn, hidden_states, encoder_hidden_states)
        masks = encoder_hidden_states_mask, attention_mask
        return super().__call__(attn, hidden_states, encoder_hidden_states, *masks, image_rotary_emb)


def share_inputs(transformer: Any) -> None:
    """Have the blocks of `transformer` compute them so, in place."""
    for module in transformer.modules():
        processor = getattr(module, "processor", None)
        if type(processor) is QwenDoubleStreamAttnProcessor2_0:
            processor.__class__ = SharedInputJointAttention
