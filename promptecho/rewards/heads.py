"""Heads that make a score of an embedding: linear layers, one after another, with no function between them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

import torch

from promptecho.errors import ModelError

LAYER = re.compile(r"(?:(?P<before>.*\.)?(?P<number>\d+)\.)?weight")
Layers = list[tuple[torch.Tensor, torch.Tensor]]


def linear_layers(tensors: Mapping[str, torch.Tensor], width: int, where: str, fix: str) -> Layers:
    """Weights and biases of a head on embeddings of `width` numbers, first layer first, in float32.

    Args:
        tensors: by names that end in a layer's number and `weight` or `bias`, such as `layers.0.weight`.
        where: key and file, for messages.
        fix: what to do about layers that do not fit, likewise.

    Raises:
        ModelError: the layers do not fit one another or the embedding.
    """
    names = {int(found["number"] or 0): name for name in tensors if (found := LAYER.fullmatch(name))}
    biases = {name: name.removesuffix("weight") + "bias" for name in names.values()}
    if not names or set(tensors) != {*biases, *biases.values()}:
        raise ModelError(f"{where}: is no chain of linear layers with weight and bias; {fix}")
    layers = [(tensors[name].float(), tensors[biases[name]].float()) for _, name in sorted(names.items())]
    widths = [width, *(len(bias) for _, bias in layers)]
    shapes = [(len(bias), before) for (_, bias), before in zip(layers, widths, strict=False)]
    if [tuple(weight.shape) for weight, _ in layers] != shapes:
        raise ModelError(f"{where}: is no chain of linear layers on {width} numbers; {fix}")
    if any(after - before > 2 for before, after in itertools.pairwise(sorted(names))):
        raise ModelError(
            f"{where}: leaves out numbers between its layers, where functions such as ReLU stand; take a linear head"
        )
    if widths[-1] != 1:
        raise ModelError(f"{where}: gives {widths[-1]} numbers, not 1; take a head of one score")
    return layers


def score(layers: Layers, embeddings: torch.Tensor) -> torch.Tensor:
    """Scores [N] of embeddings [N, width]."""
    for weight, bias in layers:
        embeddings = torch.nn.functional.linear(embeddings, weight, bias)
    return embeddings[:, 0]
