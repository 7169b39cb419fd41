"""A vision-language model that reads an image's text, asked as the published code asks."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from promptecho.benchmarks.longtext.rules import MAX_NEW_TOKENS, without_stock_phrases
from promptecho.benchmarks.perception import PerceptionFailure
from promptecho.benchmarks.templates import load_template
from promptecho.cluster.device import choose_device
from promptecho.errors import DataError
from promptecho.vlm import load_vlm, model_revision
from promptecho.vlm.generation import complete
from promptecho.vlm.inputs import batch_inputs, render_prompt


def as_jpeg(image: Image.Image) -> Image.Image:
    """The image after a JPEG file of Pillow's usual quality (75): the published code of OneIG-Bench, which reads as
    LongText-Bench's does, cuts its pictures into such files."""
    stream = io.BytesIO()
    image.save(stream, format="JPEG")
    return Image.open(stream).convert("RGB")


class VlmPage:
    """`PageReader` by a model: greedily, one image at a time, up to 1024 tokens or what its context has left, with the
    penalty for repetitions that the model's own settings have; bfloat16 on a GPU, as the published code runs, and
    float32 elsewhere.

    Args:
        model: a folder, a hub id, or the name of a model that ships with the project.
        mode: official or fixed, see `without_stock_phrases`.

    Raises:
        ModelError: the model is not available.
    """

    def __init__(self, model: str, device: str = "auto", mode: str = "official"):
        device = choose_device(device)
        self._vlm = load_vlm(model, dtype="bfloat16" if device.startswith("cuda") else "float32", device=device)
        self._text = render_prompt(self._vlm, load_template("longtext", "read").fill())
        self._penalty = getattr(self._vlm.model.generation_config, "repetition_penalty", None) or 1.0
        self._mode = mode
        # A folder by its last part: the same weights elsewhere are the same reader, which the revision tells.
        self.name = f"{Path(model).name if Path(model).is_dir() else model}@{model_revision(model)}"

    def __call__(self, image: Image.Image) -> str:
        """Raises:
        PerceptionFailure: as `answer`.
        """
        return without_stock_phrases(self.answer(image, MAX_NEW_TOKENS), self._mode)

    def answer(self, image: Image.Image, max_new_tokens: int) -> str:
        """What the model answers, as it is.

        Raises:
            PerceptionFailure: the image exceeds the model's context, or its processor refuses it.
        """
        try:
            inputs = batch_inputs(self._vlm, [image], [self._text], padding_side="left")
            room = max(1, self._vlm.context_length - inputs["input_ids"].shape[1])
            [answer] = complete(
                self._vlm, inputs, ["the image"], [0], max_new_tokens=min(max_new_tokens, room), temperature=0.0,
                repetition_penalty=self._penalty,
            )  # fmt: skip
        except DataError as error:
            raise PerceptionFailure(str(error)) from error
        return answer.text
