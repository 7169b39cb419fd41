"""Caption images with any Hugging Face image-text-to-text model: greedy, or sampled with a seed per image."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from promptecho.captions.shard_spec import GenerationSettings
from promptecho.seeds import derive_seed
from promptecho.vlm.generation import Completion, complete
from promptecho.vlm.inputs import batch_inputs, render_prompt
from promptecho.vlm.model import Vlm


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
