"""Every random draw of an iteration, the choice of its prompts (prompts.py) among them: functions of (seed, iteration,
prompt, image).

Nothing here knows ranks, batch sizes or what ran before, so any world size sees the same iteration, and resuming
needs no cursor.
"""

from __future__ import annotations

import numpy as np
import torch

from promptecho.config.training import TrainingConfig
from promptecho.seeds import derive_seed
from promptecho.train.prompts import Prompt as Prompt  # from here as well: data.py is where one looks
from promptecho.train.prompts import prompts_of as prompts_of


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
