"""What a segment of a run is, and what stays the same throughout its iterations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from promptecho.config import ExperimentConfig, TrainingConfig
from promptecho.memory import MemoryAdvice
from promptecho.t2i.base import Family
from promptecho.t2i.prompt_cache import PromptCache
from promptecho.train.data import Prompt
from promptecho.train.engine import Engine
from promptecho.train.placement.base import Rewarder
from promptecho.train.prompts import PromptUse
from promptecho.train.scoring import WeightedReward
from promptecho.train.stop import StopCheck
from promptecho.train.watchdog import Watchdog


@dataclass
class Segment:
    """What to train and where to put it."""

    config: ExperimentConfig
    run: str
    to: int
    captions: Path
    out: Path
    work: Path
    resume: Path | None = None
    stop_file: Path | None = None
    device: str = "cpu"
    heldout: Path | None = None
    tensorboard: Path | None = None
    accept_captions: bool = False  # go on although prompts that were used are others now
    on_leave: Callable[[], None] = lambda: None  # before a process that is asked to stop while it loads ends itself


@dataclass
class Trainer:
    """Everything that stays the same from iteration to iteration."""

    segment: Segment
    training: TrainingConfig
    family: Family
    encoder: PromptCache
    engine: Engine
    rewards: list[WeightedReward]
    rewarder: Rewarder
    prompts: list[Prompt]
    heldout: list[Prompt]
    shape: tuple[int, ...]  # of one image's latents
    grid: torch.Tensor  # the sampler's timesteps
    stop: StopCheck
    watchdog: Watchdog
    memory: MemoryAdvice
    rows: list[dict[str, Any]] = field(default_factory=list)
    load_seconds: dict[str, float] = field(default_factory=dict)  # for this process's first row of metrics
    first_row: dict[str, Any] = field(default_factory=dict)  # likewise

    @cached_property
    def use(self) -> PromptUse:
        """What the iterations use, for the state's record."""
        labels = [entry.labels for entry in self.rewards if entry.labels is not None]
        return PromptUse(self.prompts, labels, self.training.seed, self.training.prompts_per_iteration)

    def boundary(self, phase: str, iteration: int, step: int = 0) -> None:
        """For step boundaries that all ranks share: tell the watchdog, and leave if asked to stop."""
        self.watchdog(phase, iteration, step)
        self.stop()
