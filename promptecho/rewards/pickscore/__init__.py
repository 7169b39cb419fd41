"""PickScore: what people preferred of two images for a prompt, by a CLIP that was taught it."""

from promptecho.config.descriptors import Reward
from promptecho.rewards.pickscore.options import PickScoreSection

REWARD = Reward(
    name="pickscore",
    summary="PickScore, people's preferences",
    build="promptecho.rewards.pickscore.reward:build",
    options=PickScoreSection,
    needs_vlm=False,
    unit="PickScore",
)
