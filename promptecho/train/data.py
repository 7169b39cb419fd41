"""What an iteration works on: its records, and every random draw, the choice of its prompts (prompts.py) among them.

The draws are functions of (seed, iteration, prompt, image). Nothing here knows ranks, batch sizes or what ran before,
so any world size sees the same iteration, and resuming needs no cursor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from promptecho.config.training import TrainingConfig
from promptecho.seeds import derive_seed
from promptecho.train.prompts import TrainingPrompt as TrainingPrompt  # from here as well: data.py is where one looks
from promptecho.train.prompts import prompts_of as prompts_of
from promptecho.train.sizes import Shape, TrainingSize, by_shape, cut


@dataclass
class Rollout:
    """All images of an iteration, prompt-major: image g * K + k is the k-th of prompt g. Same on every rank, but for
    the latents, of which each rank has those that it has sampled."""

    prompts: list[TrainingPrompt]
    cond: list[torch.Tensor]  # per prompt
    share: list[int]  # images whose latents are here
    latents: torch.Tensor  # [len(share), ...], float32
    rewards: torch.Tensor  # [rewards, G, K], float64; NaN where an image has none
    advantages: torch.Tensor  # [G * K], float64
    diversity: float = 0.0
    replies: dict[str, float] = field(default_factory=dict)  # metrics about failed replies and single rewards
    numbers: list[int] | None = None  # [G * K], each image's among those sampled for its prompt; None: 0 to K - 1
    chosen: list[int] | None = None  # the images that the update trains on, increasing; None: all
    path: torch.Tensor | None = None  # [len(share), steps + 1, ...], float32: what a stochastic sampler passed through
    sizes: list[TrainingSize] | None = None  # per prompt, where they differ: latents are rows (sizes.py)

    @property
    def total(self) -> int:
        return len(self.advantages)

    @property
    def images_per_prompt(self) -> int:
        return self.total // len(self.prompts)

    def prompt_of(self, image: int) -> int:
        return image // self.images_per_prompt

    def shapes_of(self, images: Sequence[int]) -> list[Shape]:
        """The latents' shape of each of the images."""
        if self.sizes is None:
            return [tuple(self.latents.shape[1:])] * len(images)
        return [self.sizes[self.prompt_of(image)].shape for image in images]

    def number_of(self, image: int) -> int:
        """Its number among the images that were sampled for its prompt, which seeds its draws."""
        return image % self.images_per_prompt if self.numbers is None else self.numbers[image]


@dataclass
class Batch:
    """Images of a loss with all it compares with; times and references [T, n, ...], None where not used.

    `stored` is what one algorithm has beside the others, each [T, n, ...]: of nft `old_velocity`; of grpo a step of the
    sampler, `x_t`, `x_next`, `t_next` and `std`.

    Where images differ in size, `shapes` has the latents' shape of each, and what is [..., n, ...] above are rows
    (sizes.py).
    """

    prompt_ids: list[str]  # [n]
    x0: torch.Tensor  # [n, ...]
    cond: list[torch.Tensor]  # [n]
    advantages: torch.Tensor  # [n]
    t: torch.Tensor
    noise: torch.Tensor
    old_log_prob: torch.Tensor
    base_velocity: torch.Tensor | None = None
    ema_velocity: torch.Tensor | None = None
    stored: dict[str, torch.Tensor] = field(default_factory=dict)
    spare: torch.Tensor | None = None  # some prompt's conditioning, for passes for nobody
    shapes: list[Shape] | None = None  # [n]
    spare_shape: Shape = ()  # a shape, for passes for nobody; only with `shapes`

    def parts(self) -> list[tuple[list[int], Batch]]:
        """The images of each size (their indices, and a batch of them with values in their own shape); the whole where
        there is one size."""
        if self.shapes is None:
            return [([*range(len(self.prompt_ids))], self)]
        return [(images, self.take(images)._in_shape(shape)) for images, shape in by_shape(self.shapes)]

    def _in_shape(self, shape: Shape) -> Batch:
        """Images of one shape that are rows, with values of that shape."""

        def own(value: torch.Tensor | None) -> torch.Tensor | None:
            return None if value is None else cut(value, shape)

        return replace(
            self, x0=cut(self.x0, shape), noise=cut(self.noise, shape), base_velocity=own(self.base_velocity),
            ema_velocity=own(self.ema_velocity), shapes=None,
            stored={name: cut(value, shape) for name, value in self.stored.items()},
        )  # fmt: skip

    def take(self, images: list[int], times: list[int] | slice = slice(None)) -> Batch:
        """Some images at some timesteps."""
        return self._picked(images, lambda value: value[times][:, images])

    def at(self, units: list[tuple[int, list[int]]]) -> Batch:
        """Some images, each at T timesteps of its own; an image may occur several times."""
        images, rows = [image for image, _ in units], torch.tensor([times for _, times in units]).T
        return self._picked(images, lambda value: value[rows, images])

    def nobody(self, n_times: int) -> Batch:
        """An image of zeros at the end of the noise, for a pass that all ranks make and this one has no image for."""

        def zeros(value: torch.Tensor | None) -> torch.Tensor | None:
            return None if value is None else value.new_zeros((n_times, 1, *value.shape[2:]))

        # Ones: a standard deviation is divided by.
        stored = {name: value.new_ones((n_times, 1, *value.shape[2:])) for name, value in self.stored.items()}

        x0, t = self.x0.new_zeros((1, *self.x0.shape[1:])), self.t.new_ones((n_times, 1))
        assert self.spare is not None, "the batch of an iteration has one"
        return Batch(
            [""], x0, [self.spare], self.advantages.new_zeros(1), t, self.noise.new_zeros((n_times, *x0.shape)),
            self.old_log_prob.new_zeros(t.shape), zeros(self.base_velocity), zeros(self.ema_velocity),
            stored, shapes=None if self.shapes is None else [self.spare_shape],
        )  # fmt: skip

    def _picked(self, images: list[int], pick: Callable[[torch.Tensor], torch.Tensor]) -> Batch:

        def pick_any(value: torch.Tensor | None) -> torch.Tensor | None:
            return None if value is None else pick(value)

        return Batch(
            [self.prompt_ids[i] for i in images], self.x0[images], [self.cond[i] for i in images],
            self.advantages[images], pick(self.t), pick(self.noise), pick(self.old_log_prob),
            pick_any(self.base_velocity), pick_any(self.ema_velocity),
            {name: pick(value) for name, value in self.stored.items()}, self.spare,
            None if self.shapes is None else [self.shapes[i] for i in images], self.spare_shape,
        )  # fmt: skip


class NotFiniteError(Exception):
    """A loss or gradient is not finite; on every rank together. Carries this rank's batch, empty if it is innocent."""

    def __init__(self, what: str, batch: Batch, step: int):
        super().__init__(what)
        self.what, self.batch, self.step = what, batch, step


def normal(shape: tuple[int, ...], *key: int | str) -> torch.Tensor:
    """Standard normal noise of `shape` for one image, drawn on the CPU so that every device sees the same."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(derive_seed(*key)))


def batches_of(n_images: int, training: TrainingConfig, iteration: int, pass_index: int) -> list[list[int]]:
    """The images of each optimizer step of one pass: a shuffle of all images, cut into equal batches.

    Where the images of a prompt share their loss noise, prompts are shuffled and stay whole.
    """
    rng = np.random.default_rng(derive_seed(training.seed, "order", iteration, pass_index))
    if training.timesteps.shared_by == "prompt":
        k = training.update_group
        order = [g * k + i for g in rng.permutation(n_images // k).tolist() for i in range(k)]
    else:
        order = rng.permutation(n_images).tolist()
    return [order[start : start + training.batch_size] for start in range(0, n_images, training.batch_size)]
