"""A vision-language model that reads an image's text, asked as the published code asks."""

from __future__ import annotations

import io

from PIL import Image

from promptecho.benchmarks.local_vlm import LocalVlm
from promptecho.benchmarks.longtext.rules import MAX_NEW_TOKENS, without_stock_phrases
from promptecho.benchmarks.templates import load_template
from promptecho.vlm.inputs import render_prompt


def as_jpeg(image: Image.Image) -> Image.Image:
    """The image after a JPEG file of Pillow's usual quality (75): the published code of OneIG-Bench, which reads as
    LongText-Bench's does, cuts its pictures into such files."""
    stream = io.BytesIO()
    image.save(stream, format="JPEG")
    return Image.open(stream).convert("RGB")


class VlmPage:
    """`PageReader` by a model (`LocalVlm`), one image at a time, up to 1024 tokens.

    Args:
        mode: official or fixed, see `without_stock_phrases`.

    Raises:
        ModelError: the model is not available.
    """

    def __init__(self, model: str, device: str = "auto", mode: str = "official"):
        self._model = LocalVlm(model, device)
        self._text = render_prompt(self._model.vlm, load_template("longtext", "read").fill())
        self._mode = mode
        self.name = self._model.name

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
        [answer] = self._model.answers(image, [self._text], ["the image"], max_new_tokens)
        return answer
