"""TIIF-Bench's official summary as pure functions of answers (github.com/A113N-W3I/TIIF-Bench, 3aae750).

Mode `official` keeps what `summary_results.py` and `summary_dimension_results.py` do: answers and expected answers are
paired up to the shorter list, an attribute's accuracy is rounded to four decimals before anything is averaged, and an
attribute without answers leaves all averages without a word. Mode `fixed` repairs these: lists of unequal length are
an error, nothing is rounded, and an attribute of the prompt set that lost all its answers is an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from promptecho.benchmarks.tiif.attributes import ATTRIBUTES, column_weights
from promptecho.errors import DataError, counted

MODES = ("official", "fixed")


@dataclass(frozen=True)
class AnswerCount:
    """Answers that were as expected, of all."""

    correct: int = 0
    total: int = 0

    def __add__(self, other: AnswerCount) -> AnswerCount:
        return AnswerCount(self.correct + other.correct, self.total + other.total)

    def accuracy(self, mode: str = "official") -> float | None:
        """Share of right answers, None where there are none; rounded to four decimals in mode official."""
        if not self.total:
            return None
        share = self.correct / self.total
        return round(share, 4) if mode == "official" else share


def as_expected(expected: Sequence[str], answers: Sequence[str], mode: str = "official") -> list[bool]:
    """Whether each answer is the expected one; case and white space around it do not count.

    Raises:
        DataError: in mode fixed, the numbers differ; official drops the rest of the longer list.
    """
    if mode == "fixed" and len(expected) != len(answers):
        raise DataError(f"{counted(len(answers), 'answer')} to {counted(len(expected), 'question')}; ask again")
    return [a.strip().lower() == b.strip().lower() for a, b in zip(expected, answers, strict=False)]


def tally(expected: Sequence[str], answers: Sequence[str], mode: str = "official") -> AnswerCount:
    """The questions of one image.

    Raises:
        DataError: as as_expected.
    """
    right = as_expected(expected, answers, mode)
    return AnswerCount(sum(right), len(right))


def column_scores(tallies: Mapping[str, AnswerCount], mode: str = "official") -> dict[str, float]:
    """Column (attributes.COLUMNS) -> score of one length, from attribute -> tally over questions (not images).

    Attributes without answers leave the means, columns without attributes are not there.

    Raises:
        DataError: an unknown attribute; in mode fixed, one without an answer.
    """
    if unknown := sorted(tallies.keys() - set(ATTRIBUTES)):
        raise DataError(f"TIIF summary: attribute {unknown[0]!r} is unknown; known: {', '.join(ATTRIBUTES)}")
    accuracies = {attribute: found.accuracy(mode) for attribute, found in tallies.items()}
    empty = sorted(attribute for attribute, accuracy in accuracies.items() if accuracy is None)
    if mode == "fixed" and empty:
        raise DataError(
            f"TIIF summary: every question of attribute {empty[0]!r} failed; score again, or in mode official, which "
            "leaves it out"
        )
    values = {attribute: accuracy for attribute, accuracy in accuracies.items() if accuracy is not None}
    return {
        column: math.fsum(weight * values[attribute] for attribute, weight in weights.items())
        for column, weights in column_weights(values).items()
    }


def summarize(tallies: Mapping[tuple[str, str], AnswerCount], mode: str = "official") -> dict[str, float]:
    """The summary of a score file from (length, attribute) -> tally.

    Names: `short.COLUMN` and `long.COLUMN` for each column that has data; `short.coverage` and `long.coverage`, the
    share of the 39 attributes that have data: below 1, overall and the averages are those of what is there and are
    not comparable with published ones; `overall`, the mean of short.overall and long.overall, which is this
    project's: the official tables never mix the two.

    Raises:
        DataError: as column_scores, or a length has no answer at all.
    """
    summary: dict[str, float] = {}
    for length in ("short", "long"):
        mine = {attribute: found for (found_length, attribute), found in tallies.items() if found_length == length}
        columns = column_scores(mine, mode)
        if not columns:
            raise DataError(f"TIIF summary: no question about images of {length} prompts was answered; score again")
        covered = sum(found.total > 0 for found in mine.values())
        summary |= {f"{length}.{name}": value for name, value in columns.items()}
        summary[f"{length}.coverage"] = covered / len(ATTRIBUTES)
    return {"overall": (summary["short.overall"] + summary["long.overall"]) / 2, **summary}
