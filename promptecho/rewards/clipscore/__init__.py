"""CLIPScore: how near CLIP finds an image to its prompt."""

from promptecho.config.descriptors import Reward
from promptecho.rewards.clipscore.options import ClipScoreSection

REWARD = Reward(
    name="clipscore",
    summary="CLIPScore",
    build="promptecho.rewards.clipscore.reward:build",
    options=ClipScoreSection,
    needs_vlm=False,
    unit="2.5 x cosine",
)
