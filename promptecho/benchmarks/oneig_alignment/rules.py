"""OneIG-Bench's alignment score as pure functions of answers (github.com/OneIG-Bench/OneIG-Benchmark,
scripts/alignment/alignment_score.py).

Each question is asked by itself and counts 1 where the answer is exactly "Yes". It counts 0 where one of the questions
that it depends on was not answered so; what these depend on themselves does not matter, and a question that is not
there is passed over. An image is the mean over its questions, a prompt the mean over its images, and the score the mean
over the prompts of all classes together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from promptecho.benchmarks.dpg.questions import DpgQuestion

MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"  # which the published code asks
MAX_NEW_TOKENS = 128  # of its answer
YES = "Yes"


def asked(question: str) -> str:
    """What the model is asked; the full stop follows a question mark there, too."""
    return f"{question}. Please answer 'Yes' or 'No' only."


def class_of(item_id: str) -> str:
    """The class of a prompt, such as `anime` of `anime_007`."""
    return item_id.rpartition("_")[0] or "all"


def counted(questions: Sequence[DpgQuestion], answered: Mapping[int, float]) -> list[float]:
    """What each question counts, from the answers by number: 1.0 for yes, else 0.0."""
    return [
        0.0 if any(answered.get(parent) == 0 for parent in question.parents) else answered[question.id]
        for question in questions
    ]


def image_score(values: Sequence[float]) -> float:
    """The score of an image from what its questions count."""
    return sum(values) / len(values)


def prompts_mean(images: Mapping[str, Sequence[float]]) -> float:
    """The mean over prompts of the means of their images."""
    return fmean(fmean(values) for values in images.values())
