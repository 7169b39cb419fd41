"""What a segment of a run is, and what stays the same throughout its iterations."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from promptecho.captions.sources import hashes_of
from promptecho.config import ExperimentConfig, TrainingConfig
from promptecho.source_images import EditPrompt, Prompt, SourceImage
from promptecho.t2i.base import T2iModel
from promptecho.t2i.prompt_cache import PromptCache
from promptecho.train.data import TrainingPrompt
from promptecho.train.engine import Engine
from promptecho.train.phases import Phases
from promptecho.train.placement.base import Rewarder
from promptecho.train.prompt_sizes import in_words
from promptecho.train.prompts import PromptUse
from promptecho.train.saving import Saver
from promptecho.train.scoring import WeightedReward
from promptecho.train.sizes import TrainingSizes
from promptecho.train.speed import Work, rates, reference_sets


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
    init_adapter: Path | None = None  # the folder of what `training.init_adapter` names
    stop_file: Path | None = None
    device: str = "cpu"
    heldout: Path | None = None
    trackers: Path | None = None  # results/E, where the trackers of the configuration have their folders; None: none
    tensorboard: Path | None = None  # a folder for TensorBoard's files, whatever the configuration says
    accept_captions: bool = False  # go on although prompts that were used have changed
    work_per_iteration: Work | None = None  # counted beforehand, for MFU; None: metrics tell seconds alone
    on_leave: Callable[[], None] = lambda: None  # before a process that is asked to stop while it loads ends itself


@dataclass
class Trainer:
    """Everything that stays the same from iteration to iteration."""

    segment: Segment
    training: TrainingConfig
    family: T2iModel
    encoder: PromptCache
    engine: Engine
    rewards: list[WeightedReward]
    rewarder: Rewarder
    prompts: Sequence[TrainingPrompt]
    heldout: list[TrainingPrompt]
    sizes: TrainingSizes
    phase: Phases
    saver: Saver = field(default_factory=Saver)
    rows: list[dict[str, Any]] = field(default_factory=list)
    gpus: int = 0  # all processes of the launch, reward servers included; 0: those that train
    initial: dict[str, torch.Tensor] | None = None  # weights that a run begins with; None: those of the engine
    base: dict[str, torch.Tensor] | None = None  # the base model's weights, where these are what is trained
    sources: Mapping[str, SourceImage] = field(default_factory=dict)  # by prompt id, where the family edits images
    first_row: dict[str, Any] = field(default_factory=dict)  # what this process's first row of metrics also contains

    @cached_property
    def use(self) -> PromptUse:
        """What the iterations use, for the state's record."""
        labels = [entry.labels for entry in self.rewards if entry.labels is not None]
        labels += in_words(self.training, self.segment.config.models.t2i, self.sizes.by_image)
        labels += hashes_of(self.sources)
        return PromptUse(self.prompts, labels, self.training.seed, self.training.prompts_per_iteration)

    def asked(self, prompt: TrainingPrompt) -> Prompt:
        """What the family is asked for a prompt."""
        source = self.sources.get(prompt.prompt_id)
        return prompt.text if source is None else EditPrompt(prompt.text, source)

    @property
    def grid(self) -> torch.Tensor:
        """The sampler's timesteps for images of the first size."""
        return self.sizes.sizes[0].grid

    def measured(self, iteration: int, images: int) -> dict[str, float]:
        """Seconds, memory and speed of an iteration (the first is 0) with so many images, for its row of metrics."""
        found, work = self.phase.meter.metrics(images), self.segment.work_per_iteration
        if work is None:
            return found
        trainers, sets = dist.get_world_size(), reference_sets(self.training, iteration)
        beside = getattr(self.rewarder, "overlaps", False)
        return found | rates(work, found, sets=sets, trainers=trainers, gpus=self.gpus or trainers, beside=beside)

    def say(self, message: str) -> None:
        """Rank 0 tells it, in one line."""
        if dist.get_rank() == 0:
            print(f"train {self.segment.run}: {message}", file=sys.stderr, flush=True)
