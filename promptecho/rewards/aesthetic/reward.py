"""LAION's aesthetic score: how much people like an image, whatever its prompt, by a head on CLIP's embedding."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import torch
from PIL import Image

from promptecho.errors import ModelError
from promptecho.rewards.base import RewardContext
from promptecho.rewards.clip import ClipEncoder, clip_encoder

LAYER = re.compile(r"(?:(?P<before>.*\.)?(?P<number>\d+)\.)?weight")
Layers = list[tuple[torch.Tensor, torch.Tensor]]


class AestheticReward:
    """The head's number for CLIP's image embedding of length 1; prompts are not read.

    Layers follow one another without a non-linear function between them, as in the authors' head `linearMSE`
    (christophschuhmann/improved-aesthetic-predictor), whose dropout does nothing once it is taught.
    """

    def __init__(self, encoder: ClipEncoder, layers: Layers):
        self.encoder, self.layers = encoder, layers

    def __call__(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> list[float]:
        """Ratings of `images[N]`, mostly from 1 to 10.

        Raises:
            RewardError: one is not finite; names prompt id and image.
        """
        if not images:
            return []
        values = self.encoder.images(images)
        for weight, bias in self.layers:
            values = torch.nn.functional.linear(values, weight, bias)
        return self.encoder.checked(values[:, 0].tolist(), images, prompt_ids)


def read_head(path: Path, width: int) -> Layers:
    """Weights and biases of a head on embeddings of `width` numbers, first layer first, in float32.

    Nothing but tensors is read of a .pth: a pickle that would run code is refused.

    Raises:
        ModelError: it is missing, no such file, or its layers do not fit one another or the embedding.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        names = {int(found["number"] or 0): name for name in tensors if (found := LAYER.fullmatch(name))}
        pairs = [(tensors[name], tensors[name.removesuffix("weight") + "bias"]) for _, name in sorted(names.items())]
        layers = [(weight.float(), bias.float()) for weight, bias in pairs]
    except Exception as error:  # of zip files, pickles, safetensors, and of what they hold
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"aesthetic.head: {path}: cannot read a head's weights ({reason})") from error
    widths = [width, *(len(bias) for _, bias in layers)]
    shapes = [(len(bias), before) for (_, bias), before in zip(layers, widths, strict=False)]
    if not layers or len(names) * 2 != len(tensors) or [tuple(weight.shape) for weight, _ in layers] != shapes:
        raise ModelError(
            f"aesthetic.head: {path}: is no chain of linear layers on {width} numbers; take a head for this CLIP"
        )
    if any(after - before > 2 for before, after in itertools.pairwise(sorted(names))):
        raise ModelError(
            f"aesthetic.head: {path}: leaves out numbers between its layers, where functions such as ReLU stand; take "
            "a linear head"
        )
    if widths[-1] != 1:
        raise ModelError(f"aesthetic.head: {path}: gives {widths[-1]} numbers, not 1; take a head of one score")
    return layers


def build(context: RewardContext) -> AestheticReward:
    """As a descriptor's `build`.

    Raises:
        ModelError: model or head are not to be had.
    """
    encoder = clip_encoder("aesthetic", context)
    head = Path(context.options.head).expanduser()
    return AestheticReward(encoder, read_head(head, encoder.model.config.projection_dim))
