"""Images of several sizes in one training: which size a prompt's images have, and latents of all sizes in one tensor.

A prompt's size is a function of the run's seed and the prompt's id, or of the image that it captions (prompt_sizes.py),
so all its images have one size, and ranks, batches and interruptions change nothing. Where sizes differ, an image's
latents, noise and velocities are a row: flat, with zeros behind those of an image that is smaller than the largest.
`cut` brings a row's values back into their shape. A pass through the model holds images of one shape; one over several
is cut into a pass for each, as t2i/lengths.py does it with lengths.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from promptecho.config.models import T2iSection
from promptecho.config.training import TrainingConfig
from promptecho.seeds import derive_seed
from promptecho.t2i.base import T2iModel

Shape = tuple[int, ...]
DRAWS = 2**53


@dataclass(frozen=True)
class TrainingSize:
    """One size of training images: its `shape` in latents, and the sampler's timesteps for it without the 0 at their
    end."""

    height: int
    width: int
    shape: Shape
    grid: torch.Tensor

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


@dataclass(frozen=True)
class TrainingSizes:
    """The sizes of a run, of which a prompt has one in proportion to `weights`, or the one that `by_image` gives its id
    (None: no prompt has one from its image)."""

    sizes: tuple[TrainingSize, ...]
    weights: tuple[float, ...]
    seed: int
    by_image: dict[str, int] | None = None

    @classmethod
    def of(
        cls, family: T2iModel, training: TrainingConfig, t2i: T2iSection, by_image: dict[str, int] | None = None
    ) -> TrainingSizes:
        sampling, found = training.sampling, []
        for height, width in training.image_sizes(t2i):
            grid = family.timesteps(sampling.num_inference_steps, height, width, sampling.schedule)[:-1]
            found.append(TrainingSize(height, width, family.latent_shape(height, width), grid))
        return cls(tuple(found), tuple(training.size_weights(t2i)), training.seed, by_image)

    @property
    def several(self) -> bool:
        return len(self.sizes) > 1

    @property
    def row(self) -> Shape:
        """Shape of an image's latents beside others: its own where all are alike, else flat and as long as that of the
        largest."""
        return self.sizes[0].shape if not self.several else (max(math.prod(size.shape) for size in self.sizes),)

    def number(self, prompt_id: str) -> int:
        """Which of the sizes a prompt's images have."""
        if not self.several:
            return 0
        if self.by_image is not None:
            return self.by_image[prompt_id]
        place = derive_seed(self.seed, "size", prompt_id) % DRAWS / DRAWS * sum(self.weights)
        ends = list(itertools.accumulate(self.weights))
        return min(bisect.bisect_right(ends, place), len(ends) - 1)

    def size_of(self, prompt_id: str) -> TrainingSize:
        return self.sizes[self.number(prompt_id)]


def spread(values: torch.Tensor, row: Shape) -> torch.Tensor:
    """`values` [N, ...] of one shape as rows [N, *row]."""
    if tuple(values.shape[1:]) == row:
        return values
    values = values.flatten(1)
    return torch.nn.functional.pad(values, (0, row[0] - values.shape[1]))


def cut(rows: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Rows [..., *row] of images of one `shape` as [..., *shape]; nothing is done to those that have it."""
    if tuple(rows.shape[-len(shape) :]) == shape:
        return rows
    return rows[..., : math.prod(shape)].unflatten(-1, shape)


def by_shape(shapes: Sequence[Shape]) -> list[tuple[list[int], Shape]]:
    """Indices of the images of each shape, in the order in which shapes first occur."""
    found: dict[Shape, list[int]] = {}
    for index, shape in enumerate(shapes):
        found.setdefault(shape, []).append(index)
    return [(indices, shape) for shape, indices in found.items()]
