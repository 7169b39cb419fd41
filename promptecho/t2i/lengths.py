"""Attention without masks: what goes through the transformer together has one length.

Prompts of different lengths in one pass are padded to the longest and masked. Attention with a mask takes slower
kernels (on GPUs about twice as long), and what was padded is computed in vain. So a pass is cut into one for each
length, and whoever makes batches deals out images by length first, so that few have to be cut. The results are the
same to float tolerance, and the same bits where all lengths are equal, since then nothing is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch

T = TypeVar("T")
Velocity = Callable[[torch.Tensor, torch.Tensor, Sequence[Any]], torch.Tensor]


def groups_of(lengths: Sequence[Hashable]) -> list[list[int]]:
    """Indices of the items of each length, in the order in which lengths first occur."""
    groups: dict[Hashable, list[int]] = {}
    for index, length in enumerate(lengths):
        groups.setdefault(length, []).append(index)
    return list(groups.values())


def length_by_length(
    velocity: Velocity, x_t: torch.Tensor, t: torch.Tensor, cond: Sequence[Any], lengths: Sequence[Hashable]
) -> torch.Tensor:
    """`velocity(x_t, t, cond)` [N, ...] by one pass for each of `lengths` [N] (or whatever may not differ in a pass);
    differentiable."""
    groups = groups_of(lengths)
    if len(groups) < 2:
        return velocity(x_t, t, cond)
    parts = []
    for group in groups:
        # A slice where it can be: an index would be sent to the GPU first.
        rows: Any = slice(group[0], group[-1] + 1) if group[-1] - group[0] + 1 == len(group) else group
        parts.append(velocity(x_t[rows], t[rows], [cond[index] for index in group]))
    found, order = torch.cat(parts), [index for group in groups for index in group]
    if order == sorted(order):
        return found
    return found[sorted(range(len(order)), key=order.__getitem__)]


def sorted_by_length(
    family: Any, images: Sequence[T], tokens_of: Callable[[T], int],
    shape_of: Callable[[T], tuple[int, ...]] = lambda image: (),
) -> list[T]:  # fmt: skip
    """`images` with those of one length beside each other, in their own order where lengths are equal.

    Args:
        family: the model; one without `padded_length` has no use for an order of lengths.
        tokens_of: how many tokens the embedding of an image's prompt has.
        shape_of: shape of an image's latents; those of one shape come together first.
    """
    padded_length = getattr(family, "padded_length", lambda tokens: 0)
    return sorted(images, key=lambda image: (shape_of(image), padded_length(tokens_of(image))))
