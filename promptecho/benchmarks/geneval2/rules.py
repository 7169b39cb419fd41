"""Soft-TIFA as pure functions of probabilities (github.com/facebookresearch/GenEval2, evaluation.py).

Each atom of a prompt is a question about the image. Its score is the probability that the model's answer begins with a
token with which one of several spellings of the right answer begins. An image has the arithmetic mean of its atoms'
scores (AM, which estimates atoms) and their geometric mean (GM, which estimates whole prompts).

What the published code does is done here, too: of a spelling the first token alone counts. In the vocabulary of Qwen's
models " 2" begins with a space that is a token of its own, which therefore counts for every number, and "10" with "1".
A token with which several spellings begin counts once here, and as often as they are there; in that vocabulary all
differ, so that the sums are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean

from promptecho.errors import DataError

MODEL = "Qwen/Qwen3-VL-8B-Instruct"  # which the published code asks
AM = "am"  # what Soft-TIFA AM is called in summaries and parts; GM is `overall`
SKILLS = ("object", "attribute", "count", "position", "verb")
NUMERALS = {
    "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
    "ten": "10",
}  # fmt: skip


def group_of(atom_count: int) -> str:
    """The group of prompts of one atomicity."""
    return f"atoms {atom_count}"


def atom_count_of(group: str) -> int:
    """The atomicity that a group is named after."""
    return int(group.removeprefix("atoms "))


def is_count(question: str) -> bool:
    """Whether the answer to a question is a number; all other questions are answered yes."""
    return question.startswith("How many")


def asked(question: str) -> str:
    """What the model is asked."""
    return f"{question} Answer in one word."


def spellings(question: str, answer: str) -> list[str]:
    """How the right answer may be spelt; `answer` is looked at where the question asks for a number, as officially.

    Raises:
        DataError: the number has no numeral: officially the word "other" would be counted.
    """
    if not is_count(question):
        return ["Yes", "yes", " yes", " Yes"]
    if answer not in NUMERALS:
        raise DataError(f"answer {answer!r} to {question!r}: expected one of {', '.join(NUMERALS)}")
    numeral = NUMERALS[answer]
    return [answer, answer.capitalize(), f" {answer}", f" {answer.capitalize()}", numeral, f" {numeral}"]


def first_tokens(texts: Iterable[str], encode: Callable[[str], Sequence[int]]) -> list[int]:
    """The tokens that texts begin with, each once."""
    return list(dict.fromkeys(encode(text)[0] for text in texts))


def answer_probability(probabilities: Iterable[float]) -> float:
    """The sum of some tokens' probabilities. What float32 adds above 1 is cut off."""
    return min(1.0, math.fsum(probabilities))


def arithmetic_mean(scores: Sequence[float]) -> float:
    """Soft-TIFA AM of an image's atoms, in 0-1."""
    return fmean(scores)


def geometric_mean(scores: Sequence[float]) -> float:
    """Soft-TIFA GM of an image's atoms, in 0-1: 0 where one is 0."""
    if min(scores) == 0:
        return 0.0
    return min(1.0, math.exp(math.fsum(map(math.log, scores)) / len(scores)))


def prompts_mean(images: Mapping[str, Sequence[float]]) -> float:
    """The mean over prompts of the means of their images."""
    return fmean(fmean(values) for values in images.values())
