"""Which prompts an iteration uses, and every random draw of it: functions of (seed, iteration, prompt, image).

Nothing here knows ranks, batch sizes or what ran before, so any world size sees the same iteration, and resuming
needs no cursor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from promptecho.config.training import TrainingConfig
from promptecho.errors import DataError
from promptecho.seeds import derive_seed


@dataclass(frozen=True)
class Prompt:
    """A training prompt; `prompt_id` is the id of the image that it captions."""

    prompt_id: str
    text: str


def prompts_of(prompts: list[Prompt], seed: int, iteration: int, n: int) -> list[Prompt]:
    """The `n` distinct prompts of an iteration (from 0), without replacement until all were used.

    Raises:
        DataError: fewer than `n` prompts in all.
    """
    if len(prompts) < n:
        raise DataError(f"{len(prompts)} training captions are fewer than training.prompts_per_iteration = {n}")
    per_epoch = len(prompts) // n  # the remainder of a shuffled epoch is left out; the next shuffle has it again
    epoch, position = divmod(iteration, per_epoch)
    order = np.random.default_rng(derive_seed(seed, "prompts", epoch)).permutation(len(prompts))
    return [prompts[index] for index in order[position * n : (position + 1) * n]]


def normal(shape: tuple[int, ...], *key: int | str) -> torch.Tensor:
    """Standard normal noise of `shape` for one image, drawn on the CPU so that every device sees the same."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(derive_seed(*key)))


def batches_of(n_images: int, training: TrainingConfig, iteration: int, pass_index: int) -> list[list[int]]:
    """The images of each optimizer step of one pass: a shuffle of all images, cut into equal batches.

    Where the images of a prompt share their loss noise, prompts are shuffled and stay whole.
    """
    rng = np.random.default_rng(derive_seed(training.seed, "order", iteration, pass_index))
    if training.timesteps.shared_by == "prompt":
        k = training.images_per_prompt
        order = [g * k + i for g in rng.permutation(n_images // k).tolist() for i in range(k)]
    else:
        order = rng.permutation(n_images).tolist()
    return [order[start : start + training.batch_size] for start in range(0, n_images, training.batch_size)]
