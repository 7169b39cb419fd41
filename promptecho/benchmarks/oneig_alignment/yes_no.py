"""A vision-language model that answers OneIG-Bench's questions, asked as the published code asks."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from promptecho.benchmarks.local_vlm import LocalVlm
from promptecho.benchmarks.longtext.vlm_page import as_jpeg
from promptecho.benchmarks.oneig_alignment.rules import MAX_NEW_TOKENS, asked
from promptecho.vlm.inputs import render_prompt

AT_ONCE = 4  # questions in a batch: as many rows as the published code has, whose rows are a prompt's images


class YesNoVqa:
    """`Vqa` by a model (`LocalVlm`).

    Raises:
        ModelError: the model is not available.
    """

    def __init__(self, model: str, device: str = "auto"):
        self._model = LocalVlm(model, device)
        self.name = self._model.name

    def answers(self, image: Image.Image, questions: Sequence[str]) -> list[str]:
        """Raises:
        PerceptionFailure: image and question exceed the model's context, or its processor refuses the image.
        """
        shown, found = as_jpeg(image), []
        for start in range(0, len(questions), AT_ONCE):
            some = questions[start : start + AT_ONCE]
            texts = [render_prompt(self._model.vlm, asked(one)) for one in some]
            found += self._model.answers(shown, texts, some, MAX_NEW_TOKENS)
        return found
