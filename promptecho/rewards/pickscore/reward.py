"""PickScore: what people preferred of two images for a prompt, by a CLIP that was taught it."""

from __future__ import annotations

from promptecho.rewards.base import RewardContext
from promptecho.rewards.clip import CosineReward, clip_encoder


def build(context: RewardContext) -> CosineReward:
    """PickScore (Kirstain et al. 2023, arXiv 2305.01569): CLIP's learned scale times the cosine. Of two images for a
    prompt, the softmax of their scores is how likely people prefer each.

    Raises:
        ModelError: the model is not to be had.
    """
    encoder = clip_encoder("pickscore", context)
    scale = float(encoder.model.logit_scale.float().exp())
    return CosineReward(encoder, lambda cosines: scale * cosines, formula=f"{scale:.4g} x cosine")
