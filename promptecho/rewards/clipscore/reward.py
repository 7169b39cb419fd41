"""CLIPScore: how near CLIP finds an image to its prompt."""

from __future__ import annotations

from promptecho.rewards.base import RewardContext
from promptecho.rewards.clip import CosineReward, clip_encoder

WEIGHT = 2.5


def build(context: RewardContext) -> CosineReward:
    """CLIPScore (Hessel et al. 2021, arXiv 2104.08718, section 3): 2.5 x max(cosine, 0).

    Raises:
        ModelError: the model is not to be had.
    """
    return CosineReward(
        clip_encoder("clipscore", context), lambda cosines: WEIGHT * cosines.clamp(min=0),
        formula=f"{WEIGHT} x max(cosine, 0)", prefix=context.options.prefix,
    )  # fmt: skip
