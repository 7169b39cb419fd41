"""A vision-language model that looks at images in the scoring job, as several benchmarks ask one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from promptecho.benchmarks.perception import PerceptionFailure
from promptecho.cluster.device import choose_device
from promptecho.errors import DataError
from promptecho.vlm import load_vlm, model_revision
from promptecho.vlm.generation import complete
from promptecho.vlm.inputs import batch_inputs

if TYPE_CHECKING:
    from PIL import Image


class LocalVlm:
    """A model, in bfloat16 on a GPU, as the published codes run theirs, and in float32 elsewhere.

    `name` says who looks: the hub id or, of a folder, its last part, since the same weights elsewhere are the same
    model; with its revision.

    Args:
        model: a folder, a hub id, or the name of a model that ships with the project.

    Raises:
        ModelError: the model is not available.
    """

    def __init__(self, model: str, device: str = "auto"):
        device = choose_device(device)
        self.vlm = load_vlm(model, dtype="bfloat16" if device.startswith("cuda") else "float32", device=device)
        self.name = f"{Path(model).name if Path(model).is_dir() else model}@{model_revision(model)}"

    def answers(self, image: Image.Image, texts: Sequence[str], named: Sequence[str], max_new_tokens: int) -> list[str]:
        """What the model answers to each of the rendered `texts` about the image, in one batch: greedily, up to
        `max_new_tokens` or what its context has left, with the penalty for repetitions of the model's own settings.

        Args:
            named: what messages call each of the questions.

        Raises:
            PerceptionFailure: image and question exceed the model's context, or its processor refuses the image.
        """
        penalty = getattr(self.vlm.model.generation_config, "repetition_penalty", None) or 1.0
        try:
            inputs = batch_inputs(self.vlm, [image] * len(texts), list(texts), padding_side="left")
            room = max(1, self.vlm.context_length - inputs["input_ids"].shape[1])
            found = complete(
                self.vlm, inputs, named, [0] * len(texts), max_new_tokens=min(max_new_tokens, room), temperature=0.0,
                repetition_penalty=penalty,
            )  # fmt: skip
        except DataError as error:
            raise PerceptionFailure(str(error)) from error
        return [answer.text for answer in found]
