"""Names of metrics in groups, as trackers show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# First match by prefix; a name that matches none is about the policy.
GROUPS = (
    ("heldout_reward", "reward/heldout"),
    ("reward_", "reward/"),
    ("zero_std_groups", "reward/zero_std_groups"),
    ("advantage_", "reward/advantage_"),
    ("seconds_", "speed/seconds_"),
    ("seconds", "speed/seconds"),
    ("tflops", "speed/tflops"),
    ("mfu", "speed/mfu"),
    ("hfu", "speed/hfu"),
    ("images_per_s", "speed/images_per_s"),
    ("memory_gb_", "memory/gb_"),
)


def tag_of(key: str) -> str:
    """A metric's group and name, for example `reward/mean`, `policy/kl_ema`, `speed/seconds_update`."""
    for prefix, replacement in GROUPS:
        if key.startswith(prefix):
            return replacement + key[len(prefix) :]
    return f"policy/{key}"


def tagged(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row by tag, without its iteration."""
    return {tag_of(key): value for key, value in row.items() if key != "iteration" and isinstance(value, int | float)}
