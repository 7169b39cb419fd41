"""mPLUG-large, the model that DPG-Bench's official evaluator asks; it runs in an environment of its own.

ModelScope's class was seen to work with modelscope 1.40.2 and transformers 4.57.3 and to fail with transformers 5, and
its preprocessor imports decord and librosa even for images. It lower-cases a question, cuts it at 25 word pieces, and
resizes the image to 504x504 pixels; answers are words like "yes", "no", "red".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from promptecho.benchmarks.perception import PerceptionFailure
from promptecho.config.defaults import MPLUG
from promptecho.errors import ModelError
from promptecho.memory import shortage

if TYPE_CHECKING:
    from PIL import Image

HOW = (
    "it needs an environment of its own: modelscope 1.40.2, transformers below 5, decord, librosa; and the model, from "
    f"ModelScope by name or as a folder: modelscope download --model {MPLUG} --local_dir FOLDER. Backend `judge` does "
    "without, but is a different metric"
)


class MplugVqa:
    """`Vqa` by ModelScope's pipeline, one call per question as officially. `model` is a name or a folder."""

    def __init__(self, model: str = MPLUG, device: str = "cpu"):
        try:
            from modelscope.pipelines import pipeline
            from modelscope.utils.constant import Tasks
        except ImportError as error:
            raise ModelError(f"backend mplug: cannot import ModelScope ({error}); {HOW}") from error
        self.name = model
        try:
            self._pipeline = pipeline(Tasks.visual_question_answering, model=model, device=device)
        except Exception as error:  # hub, file, version and device errors all look different
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise ModelError(f"backend mplug: cannot load {model} ({reason}); {HOW}") from error

    def answers(self, image: Image.Image, questions: Sequence[str]) -> list[str]:
        found = []
        for question in questions:
            try:
                answer = self._pipeline({"image": image, "question": question})["text"]
            except Exception as error:  # as officially: whatever it is, the prompt fails
                if shortage(error) is not None:  # but the next image would fail too
                    raise
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                raise PerceptionFailure(f"mPLUG has no answer to {question!r} ({reason})") from error
            if not isinstance(answer, str):
                raise PerceptionFailure(f"mPLUG answered {question!r} with {answer!r}, no text")
            found.append(answer)
        return found
