"""Rewards of images for prompts; one folder each. `make_reward(name, context)` builds one by its name.

A reward from outside imports what it needs from here; how to write one: docs/extending.md. Nothing here imports torch.
"""

from promptecho.config.descriptors import ModelOptions, OwnModel, ReplyOptions, Reward
from promptecho.config.fields import Section
from promptecho.errors import RewardError
from promptecho.rewards.base import Details, ImageScore, RewardContext, RewardFunction
from promptecho.rewards.make import make_reward

__all__ = [
    "Details", "ImageScore", "ModelOptions", "OwnModel", "ReplyOptions", "Reward", "RewardContext", "RewardError",
    "RewardFunction", "Section", "make_reward",
]  # fmt: skip
