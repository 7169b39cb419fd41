"""Caption images with any Hugging Face image-text-to-text model: greedy, or sampled with a seed per image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image

from promptecho.seeds import derive_seed
from promptecho.vlm.generation import Completion, complete
from promptecho.vlm.inputs import batch_inputs, render_prompt
from promptecho.vlm.model import Vlm


@dataclass(frozen=True)
class GenerationSettings:
    """How captions are written. `temperature` 0 is greedy."""

    max_new_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0
    dtype: str = "float32"
    batch_size: int = 16

    def identity(self) -> dict[str, Any]:
        """What decides a caption, as stored with it. Not the batch size: results agree across it but for near-ties
        that the last bits of a forward pass decide."""
        return {key: value for key, value in asdict(self).items() if key != "batch_size"}


def caption_images(
    vlm: Vlm, images: Sequence[Image.Image], image_ids: Sequence[str], query: str, settings: GenerationSettings
) -> list[Completion]:
    """One answer to `query` for each of `images[B]`, as one batch.

    A sampled answer is a function of (seed, image id, image) up to float tolerance, whatever the batch.

    Raises:
        DataError: image, query and `max_new_tokens` exceed the model's context.
        ModelError: the chat template fails.
    """
    prompt = render_prompt(vlm, query)
    inputs = batch_inputs(vlm, images, [prompt] * len(images), padding_side="left")
    seeds = [derive_seed(settings.seed, "caption", image_id) for image_id in image_ids]
    return complete(
        vlm, inputs, image_ids, seeds, max_new_tokens=settings.max_new_tokens, temperature=settings.temperature
    )
