"""A vision-language model that answers OneIG-Bench's questions, asked as the published code asks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from promptecho.benchmarks.longtext.vlm_page import as_jpeg
from promptecho.benchmarks.oneig_alignment.rules import MAX_NEW_TOKENS, asked
from promptecho.benchmarks.perception import PerceptionFailure
from promptecho.cluster.device import choose_device
from promptecho.errors import DataError
from promptecho.vlm import load_vlm, model_revision
from promptecho.vlm.generation import complete
from promptecho.vlm.inputs import batch_inputs, render_prompt

AT_ONCE = 4  # questions in a batch: as many rows as the published code has, whose rows are a prompt's images


class YesNoVqa:
    """`Vqa` by a model: greedily, with the penalty for repetitions that the model's own settings have; bfloat16 on a
    GPU, as the published code runs, and float32 elsewhere.

    Args:
        model: a folder, a hub id, or the name of a model that ships with the project.

    Raises:
        ModelError: the model is not available.
    """

    def __init__(self, model: str, device: str = "auto"):
        device = choose_device(device)
        self._vlm = load_vlm(model, dtype="bfloat16" if device.startswith("cuda") else "float32", device=device)
        self._penalty = getattr(self._vlm.model.generation_config, "repetition_penalty", None) or 1.0
        # A folder by its last part: the same weights elsewhere are the same model, which the revision tells.
        self.name = f"{Path(model).name if Path(model).is_dir() else model}@{model_revision(model)}"

    def answers(self, image: Image.Image, questions: Sequence[str]) -> list[str]:
        """Raises:
        PerceptionFailure: image and question exceed the model's context, or its processor refuses the image.
        """
        shown, found = as_jpeg(image), []
        for start in range(0, len(questions), AT_ONCE):
            texts = [render_prompt(self._vlm, asked(one)) for one in questions[start : start + AT_ONCE]]
            try:
                inputs = batch_inputs(self._vlm, [shown] * len(texts), texts, padding_side="left")
                room = max(1, self._vlm.context_length - inputs["input_ids"].shape[1])
                found += complete(
                    self._vlm, inputs, questions[start : start + AT_ONCE], [0] * len(texts),
                    max_new_tokens=min(MAX_NEW_TOKENS, room), temperature=0.0, repetition_penalty=self._penalty,
                )  # fmt: skip
            except DataError as error:
                raise PerceptionFailure(str(error)) from error
        return [answer.text for answer in found]
