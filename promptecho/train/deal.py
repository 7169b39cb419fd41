"""Who computes what in an optimizer step: units of work, dealt out over any number of ranks. Pure functions.

A unit is one image at one group of timesteps (`timestep_groups`): what goes through one forward pass at least. 128
images at 4 timesteps are 512 units, so that up to 512 ranks find work in a step, and any number of them shares it as
evenly as whole units allow. A rank computes its units in passes of at most `micro_batch_size`; all ranks make equally
many passes, those with less work make some for nobody, because every backward pass may be an exchange.
"""

from __future__ import annotations

from collections.abc import Callable

from promptecho.config.training import TrainingConfig
from promptecho.train.data import batches_of
from promptecho.train.ranks import share_of_rank

Unit = tuple[int, int]  # image, and the number of a group of timesteps


def deal(images: list[int], groups: int, ranks: int, size: int) -> list[list[Unit]]:
    """For each rank its units of an optimizer step on `images`.

    Where the images make equally many full passes of `size` on all ranks, each rank has whole images; else units are
    dealt one by one, and the shares differ by at most one unit.
    """
    share, rest = divmod(len(images), ranks)
    if not rest and share % size == 0:
        return [[(image, group) for image in images[rank::ranks] for group in range(groups)] for rank in range(ranks)]
    units = [(image, group) for image in images for group in range(groups)]
    return [[units[i] for i in share_of_rank(len(units), rank, ranks)] for rank in range(ranks)]


def passes_of(
    units: list[Unit], groups: int, size: int, near: Callable[[list[int]], list[int]] = list
) -> list[list[Unit]]:
    """A rank's units as forward passes of at most `size`; of whole images in full passes each has one group.

    Args:
        near: brings images into an order in which those that suit each other in a pass are neighbours.
    """
    images = near(list(dict.fromkeys(image for image, _ in units)))
    if len(units) == len(images) * groups and len(images) % size == 0:
        starts = range(0, len(images), size)
        return [[(image, g) for image in images[start : start + size]] for start in starts for g in range(groups)]
    place = {image: position for position, image in enumerate(images)}
    units = sorted(units, key=lambda unit: (place[unit[0]], unit[1]))
    n = -(-len(units) // size)
    return [[units[i] for i in share_of_rank(len(units), part, n)] for part in range(n)]


def accumulation(training: TrainingConfig, ranks: int) -> int:
    """Backward passes per optimizer step on each of so many ranks: those of the rank with the most units."""
    return -(-largest_share(training, ranks) // training.micro_batch_size)


def largest_share(training: TrainingConfig, ranks: int) -> int:
    """Units of an optimizer step that the rank with most of them has."""
    return -(-training.batch_size * groups_per_pass(training) // ranks)


def draws_per_iteration(training: TrainingConfig) -> int:
    """How many times an iteration draws timesteps for an image: once, or for each pass over the images."""
    return training.passes if training.timesteps.redraw == "pass" else 1


def drawn_timesteps(training: TrainingConfig) -> int:
    """Timesteps that an image has noise and references for in an iteration."""
    return training.timesteps.per_sample * draws_per_iteration(training)


def timesteps_per_forward(training: TrainingConfig) -> int:
    """Timesteps of an image that go through one forward pass of the update together."""
    return 1 if training.per_timestep else training.timesteps.per_sample


def groups_per_pass(training: TrainingConfig) -> int:
    """How many groups of timesteps each image has in one pass over the images."""
    return training.timesteps.per_sample if training.per_timestep else 1


def timestep_groups(training: TrainingConfig, pass_index: int) -> list[list[int]]:
    """Rows of the drawn timesteps that go through one forward pass together, for one pass over the images."""
    n = training.timesteps.per_sample
    first = n * pass_index if training.timesteps.redraw == "pass" else 0
    rows = list(range(first, first + n))
    return [[row] for row in rows] if training.per_timestep else [rows]


def images_of_ranks(n_images: int, training: TrainingConfig, iteration: int, ranks: int) -> list[list[int]]:
    """For each rank all images that it meets in any pass of the iteration, sorted."""
    met: list[set[int]] = [set() for _ in range(ranks)]
    for pass_index in range(training.passes):
        for batch in batches_of(n_images, training, iteration, pass_index):
            dealt = deal(batch, groups_per_pass(training), ranks, training.micro_batch_size)
            for images, units in zip(met, dealt, strict=True):
                images.update(image for image, _ in units)
    return [sorted(images) for images in met]
