"""Rewards of images for prompts, behind one protocol; `make_reward(name, ...)` builds one by name."""

from promptecho.rewards.base import Reward
from promptecho.rewards.registry import make_reward

__all__ = ["Reward", "make_reward"]
