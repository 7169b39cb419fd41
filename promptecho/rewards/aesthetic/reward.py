"""LAION's aesthetic score: how much people like an image, whatever its prompt, by a head on CLIP's embedding."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from promptecho.rewards.base import RewardContext, finite
from promptecho.rewards.clip import ClipEncoder, clip_encoder
from promptecho.rewards.heads import Layers, linear_layers, score
from promptecho.rewards.tensors import read_tensors


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
        return finite("aesthetic", score(self.layers, self.encoder.images(images)).tolist(), images, prompt_ids)


def read_head(path: Path, width: int) -> Layers:
    """Weights and biases of a head on embeddings of `width` numbers, first layer first, in float32.

    Nothing but tensors is read of a .pth: a pickle that would run code is refused.

    Raises:
        ModelError: it is missing, no such file, or its layers do not fit one another or the embedding.
    """
    where = f"aesthetic.head: {path}"
    return linear_layers(read_tensors(path, where, "a head's weights"), width, where, "take a head for this CLIP")


def build(context: RewardContext) -> AestheticReward:
    """As a descriptor's `build`.

    Raises:
        ModelError: model or head are not to be had.
    """
    encoder = clip_encoder("aesthetic", context)
    head = Path(context.options.head).expanduser()
    return AestheticReward(encoder, read_head(head, encoder.model.config.projection_dim))
