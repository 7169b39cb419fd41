"""ImageReward: what people preferred of images for a prompt, by a BLIP that was taught it."""

from promptecho.config.descriptors import Reward
from promptecho.rewards.imagereward.options import ImageRewardSection

REWARD = Reward(
    name="imagereward",
    summary="ImageReward, people's preferences",
    build="promptecho.rewards.imagereward.reward:build",
    options=ImageRewardSection,
    needs_vlm=False,
    unit="ImageReward",
)
