"""LAION's aesthetic score: how much people like an image, whatever its prompt, by a head on CLIP's embedding."""

from promptecho.config.descriptors import Reward
from promptecho.rewards.aesthetic.options import AestheticSection

REWARD = Reward(
    name="aesthetic",
    summary="LAION's aesthetic score, without the prompt",
    build="promptecho.rewards.aesthetic.reward:build",
    options=AestheticSection,
    needs_vlm=False,
    unit="rating from 1 to 10",
)
