"""Rewards by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from promptecho.errors import ConfigError
from promptecho.rewards.base import Reward
from promptecho.rewards.echo import EchoReward

REWARDS: dict[str, Callable[..., Reward]] = {"echo": EchoReward}


def make_reward(name: str, *args: Any, **options: Any) -> Reward:
    """Build the reward `name` with its own arguments (`echo`: a Vlm, then query, batch_size, include_eos).

    Raises:
        ConfigError: unknown name; lists the known ones.
    """
    if name not in REWARDS:
        raise ConfigError(f"unknown reward {name!r}; known: {', '.join(sorted(REWARDS))}")
    return REWARDS[name](*args, **options)
