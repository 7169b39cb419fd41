"""The rows of a run as TensorBoard events: `tensorboard --logdir results/E/tensorboard`."""

from __future__ import annotations

from pathlib import Path
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
    """TensorBoard's tag of a metric: group/name, for example `reward/mean`, `policy/kl_ema`, `speed/seconds_update`."""
    for prefix, replacement in GROUPS:
        if key.startswith(prefix):
            return replacement + key[len(prefix) :]
    return f"policy/{key}"


class TensorBoardLog:
    """Writes rows into `folder`. Resumed at `start_iteration`, it takes back what was written beyond it."""

    def __init__(self, folder: str | Path, start_iteration: int = 0):
        from torch.utils.tensorboard import SummaryWriter

        # A fresh run writes a row 0, the held-out reward before training.
        self._writer = SummaryWriter(str(folder), purge_step=start_iteration + 1 if start_iteration else 0)

    def add(self, row: dict[str, Any]) -> None:
        """Write every number of a row at its iteration, to disk at once."""
        for key, value in row.items():
            if key != "iteration" and isinstance(value, (int, float)):
                self._writer.add_scalar(tag_of(key), value, row["iteration"])
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()
