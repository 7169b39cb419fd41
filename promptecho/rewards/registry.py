"""Rewards by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from promptecho.errors import ConfigError
from promptecho.rewards.base import Reward
from promptecho.rewards.echo import EchoReward
from promptecho.rewards.inferscore import InferScoreReward

REWARDS: dict[str, Callable[..., Reward]] = {"echo": EchoReward, "inferscore": InferScoreReward}


def make_reward(name: str, *args: Any, **options: Any) -> Reward:
    """Build the reward `name` with its own arguments (each a Vlm first: rewards/echo.py, rewards/inferscore.py).

    Raises:
        ConfigError: unknown name; lists the known ones.
    """
    if name not in REWARDS:
        raise ConfigError(f"unknown reward {name!r}; known: {', '.join(sorted(REWARDS))}")
    return REWARDS[name](*args, **options)
