"""What a step knows: the configuration with few images, the device, and where its rows go."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import yaml

from promptecho.bench.measuring import Taken, median_of
from promptecho.cluster.device import choose_device
from promptecho.compute.mode import set_up
from promptecho.config import ExperimentConfig, load_experiment, run_training
from promptecho.config.training import TrainingConfig
from promptecho.errors import ConfigError
from promptecho.models.locate import use
from promptecho.plan.gpus import Gpu, known, of_device
from promptecho.plan.plan import Planner
from promptecho.plan.settings import Settings, usual_prompt_tokens
from promptecho.plan.trace import Cost
from promptecho.t2i.base import T2iModel

MIXED = (0.4, 0.8, 1.2, 1.6)  # lengths of different prompts, over their mean
SEED = 7


@dataclass
class Bench:
    """One step's process.

    `images` go through a pass, or an iteration, together. `tokens` is the mean length of a prompt.
    """

    config: ExperimentConfig
    run: str
    device: torch.device
    images: int
    rounds: int
    tokens: int
    rows: Path
    threads: int | None = None
    gpu: Gpu | None = field(init=False)

    def __post_init__(self) -> None:
        self.gpu = card_of(self.device)
        models = self.config.models  # all steps have images of the size that is trained on
        t2i = models.t2i.of_size(*self.training.size(models.t2i))
        self.config = self.config.model_copy(update={"models": models.model_copy(update={"t2i": t2i})})

    @property
    def training(self) -> TrainingConfig:
        return run_training(self.config, self.run)

    @cached_property
    def planner(self) -> Planner:
        """What counts FLOPs of prompts of the mean length."""
        return Planner(Settings(1.0, 1.0, 1.0, 0.0, self.tokens, 1, self.config.captions.query, False))

    def row(self, what: str, **values: Any) -> None:
        """Write one, at once."""
        with self.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"what": what, **values}) + "\n")

    def facts(self, **facts: Any) -> None:
        """What holds for the whole, beside its rows."""
        with self.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"facts": facts}) + "\n")

    def timed(self, runs: list[Taken], cost: Cost | None = None) -> dict[str, Any]:
        """Seconds, peak memory and, of useful work that is known, TFLOP/s and MFU."""
        found: dict[str, Any] = {
            "seconds": [run.time_on(self.device) for run in runs], "peak_gb": max(run.peak_gb for run in runs),
        }  # fmt: skip
        if cost is not None:
            seconds = median_of(runs, self.device)
            found["tflops"] = cost.total / seconds / 1e12
            if self.gpu is not None:
                found["mfu"] = sum(n / self.gpu.rate(kind) for kind, n in cost.flops.items()) / seconds
        return found

    def texts(self, lengths: list[int]) -> list[str]:
        """Different prompts of about so many tokens of the text-to-image model's tokenizer."""
        from promptecho.captions.readers import t2i_reader

        return made_up(lengths, t2i_reader(self.config.models.t2i).tokenizer)

    def equal(self, n: int) -> list[int]:
        """Lengths of `n` prompts: the mean."""
        return [self.tokens] * n

    def mixed(self, n: int) -> list[int]:
        """Lengths of `n` prompts that have the same mean (of every four) and differ."""
        return [max(1, round(self.tokens * MIXED[i % len(MIXED)])) for i in range(n)]

    def noise(self, family: T2iModel, n: int) -> torch.Tensor:
        t2i = self.config.models.t2i
        shape = family.latent_shape(t2i.height, t2i.width)
        return torch.randn(n, *shape, generator=torch.Generator().manual_seed(SEED)).to(self.device)


def made_up(lengths: list[int], tokenizer: Any) -> list[str]:
    """Different captions of the embedded world, each with at least so many tokens."""
    import numpy as np

    from promptecho.shapes.grammar import describe, write
    from promptecho.shapes.world import wide_scene

    rng, found = np.random.default_rng(0), []
    for length in lengths:
        text = ""
        while not text or len(tokenizer(text).input_ids) < length:
            text = f"{text} {write(describe(wide_scene(rng), rng), 0)}".strip()
        found.append(text)
    return found


def card_of(device: torch.device) -> Gpu | None:
    """The card whose datasheet is known, by what CUDA calls it."""
    listed = of_device(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    return None if listed is None else known()[listed]


def open_bench(arguments: argparse.Namespace) -> Bench:
    """Read the configuration as the options change it.

    Raises:
        ConfigError: as of `load_experiment`; or no such run.
    """
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    whole = load_experiment(arguments.config)
    if not whole.runs:
        raise ConfigError(f"{arguments.config}: runs: has no run to measure; add one")
    run = arguments.run or next(iter(whole.runs))
    training = run_training(whole, run)
    config = load_experiment(arguments.config, overrides(run, few(training, arguments.images), arguments.changes))
    use(config)
    device = torch.device(choose_device(arguments.device))
    set_up(config, device)
    mean = usual_prompt_tokens(config) / max(MIXED)  # the longest of different ones is what the configuration takes
    return Bench(
        config, run, device, arguments.images, arguments.rounds,
        arguments.tokens or math.floor(mean), arguments.rows, arguments.threads,
    )  # fmt: skip


def few(training: TrainingConfig, images: int) -> list[str]:
    """Settings with which an iteration has so many images, in one batch, on one GPU."""
    group = images // 2 if images >= 4 else images
    micro = max(n for n in range(1, images + 1) if images % n == 0 and n <= training.micro_batch_size)
    return [
        f"training.prompts_per_iteration={images // group}", f"training.images_per_prompt={group}",
        "training.update_images_per_prompt=null",
        f"training.batch_size={images}", f"training.micro_batch_size={micro}", "training.heldout.prompts=0",
        "training.zero_stage=1", "training.checkpoints=null", "training.checkpoint_every=null",
        "training.lr_schedule=constant", "training.lr_decay_iterations=null", "training.init_adapter=null",
        *(["training.reward_placement.mode=colocated"] if training.reward_placement.mode == "dedicated" else []),
    ]  # fmt: skip


def overrides(run: str, *changes: list[str]) -> dict[str, Any]:
    """Lists of KEY=VALUE, the later over the earlier, as a nested mapping; `training.KEY` is also set in `run`."""
    found: dict[str, Any] = {}
    for change in chain.from_iterable(changes):
        key, equals, value = change.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {change}: expected KEY=VALUE, such as training.micro_batch_size=2")
        keys = [key, f"runs.{run}.{key.removeprefix('training.')}"] if key.startswith("training.") else [key]
        for path in keys:
            *outer, last = path.split(".")
            section = found
            for name in outer:
                section = section.setdefault(name, {})
            section[last] = yaml.safe_load(value)
    return found
