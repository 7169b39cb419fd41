"""What each mode of activation checkpointing takes, and which one a run gets whose configuration says auto.

The first mode takes the most memory and the least work, the last mode the least memory and the most work. So the first
mode that fits is the fastest one that fits. Only the update is looked at, because the other phases have no gradient and
keep no activations in any mode.
"""

from __future__ import annotations

import typing
from collections.abc import Callable

from promptecho.config import ExperimentConfig, run_training
from promptecho.config.fields import CheckpointingMode
from promptecho.config.training import TrainingConfig
from promptecho.plan.result import ModeCost

MODES: tuple[CheckpointingMode, ...] = typing.get_args(CheckpointingMode)
Update = Callable[[ExperimentConfig], int]  # bytes of a GPU that trains in the update; or FLOPs of a micro-batch


def modes_of(training: TrainingConfig) -> tuple[CheckpointingMode, ...]:
    """Those that a run can have, most memory first: what is kept by operator does not go with ZeRO-3."""
    return tuple(mode for mode in MODES if training.zero_stage != 3 or mode != "selective")


def mode_costs(config: ExperimentConfig, run: str, n_bytes: Update, flops: Update, limit: float) -> list[ModeCost]:
    """What each mode takes of at most `limit` bytes."""
    found: list[ModeCost] = []
    for mode in modes_of(run_training(config, run)):
        changed = with_mode(config, run, mode)
        size, work = n_bytes(changed), flops(changed)
        found.append(ModeCost(mode, size, work, work - found[0].flops if found else 0, size <= limit))
    return found


def chosen(config: ExperimentConfig, run: str, n_bytes: Update, limit: float) -> ExperimentConfig:
    """The configuration with a mode in place of `auto`: the first that fits, or the last where none does. Under ZeRO-3
    the last in any case, because all ranks must take the same one, however much memory each has."""
    training = run_training(config, run)
    if training.activation_checkpointing != "auto":
        return config
    *first, last = modes_of(training) if training.zero_stage != 3 else MODES[-1:]
    tried = (with_mode(config, run, mode) for mode in first)
    return next((changed for changed in tried if n_bytes(changed) <= limit), with_mode(config, run, last))


def with_mode(config: ExperimentConfig, run: str, mode: CheckpointingMode) -> ExperimentConfig:
    training = run_training(config, run).model_copy(update={"activation_checkpointing": mode})
    return config.model_copy(update={"runs": {**config.runs, run: training}})
