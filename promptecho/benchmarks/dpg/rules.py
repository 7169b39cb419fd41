"""DPG-Bench's rules as pure functions of answers (github.com/TencentQQGYLab/ELLA, 3c228f1, compute_dpg_bench.py).

Mode `official` reproduces a run of the official evaluator in one process, for comparison with published numbers:
- the file's first row is dropped; where a later question depends on it, its prompt fails (a KeyError there);
- of a prompt whose rows lie in several blocks, the last block replaces the others;
- a question counts 0 if a parent counts 0, worked out in place and in file order, so that a zero reaches a question
  only from above it;
- categories are means over the questions of each prompt's LAST image, before that zeroing.

Mode `fixed` drops no row and merges blocks; a question counts where it and all that it depends on, directly or
through others, are answered yes, whatever the order of rows; categories are means over all images, after zeroing, so
that they and Overall count the same thing. Its category columns are therefore lower than published ones, which are
all official ones.

Both: an answer counts if it is exactly "yes"; an image is the mean over its questions, a prompt the mean over its
images, Overall the mean over prompts. Not reproduced: with several processes the official categories are mixed up
(ranks gather them in the order of a set); Overall is the same there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from statistics import fmean

from promptecho.benchmarks.dpg.questions import DpgQuestion, QuestionRow, parse_questions
from promptecho.errors import ConfigError, DataError, PromptEchoError

MODES = ("official", "fixed")
Items = dict[str, list[DpgQuestion]]


class ItemFailure(PromptEchoError):
    """A prompt cannot be scored: it counts as failed, never as 0."""


@dataclass(frozen=True)
class DpgScore:
    """One image: per question in order 1.0 or 0.0 as `answered` and as `counted` (after zeroing); their mean."""

    answered: list[float]
    counted: list[float]

    @property
    def score(self) -> float:
        # sum and division as officially: the last digits are the same
        return sum(self.counted) / len(self.counted)


@dataclass(frozen=True)
class Summary:
    """Fractions: Overall, and means by category: `broad` (L1: entity, ...) and `detailed` (L2: entity - whole, ...)."""

    overall: float
    broad: dict[str, float] = field(default_factory=dict)
    detailed: dict[str, float] = field(default_factory=dict)


def check_mode(mode: str) -> None:
    """Raises:
    ConfigError: `mode` is none of MODES.
    """
    if mode not in MODES:
        raise ConfigError(f"mode {mode!r}: DPG-Bench has {' and '.join(MODES)}")


def _official_items(rows: Sequence[QuestionRow]) -> Items:
    items: Items = {}
    pairs = zip(rows[1:], parse_questions(rows[1:]), strict=True)
    for item_id, block in groupby(pairs, key=lambda pair: pair[0].item_id):
        # a repeated proposition_id keeps its first place and takes its last content, as in a dict
        items[item_id] = list({question.id: question for _, question in block}.values())
    return items


def _fixed_items(rows: Sequence[QuestionRow]) -> Items:
    items: dict[str, dict[int, tuple[DpgQuestion, QuestionRow]]] = {}
    for row, question in zip(rows, parse_questions(rows), strict=True):
        first, its_row = items.setdefault(row.item_id, {}).setdefault(question.id, (question, row))
        if (first.text, first.parents, first.category) != (question.text, question.parents, question.category):
            raise DataError(
                f"{row.where}: item_id {row.item_id!r} has another question {question.id} at {its_row.where}; "
                "give it a proposition_id of its own"
            )
    return {item_id: [question for question, _ in found.values()] for item_id, found in items.items()}


def items_of(rows: Sequence[QuestionRow], mode: str) -> Items:
    """item_id -> its questions in the order in which they are asked. In mode official the prompt of the first row has
    none where that is its only one.

    Raises:
        DataError: a malformed row (in mode official not the first, which is dropped), or for mode fixed two different
            questions of one number.
    """
    return {"official": _official_items, "fixed": _fixed_items}[mode](rows)


def _parent(counted: Mapping[int, float], parent: int, question: DpgQuestion) -> float:
    if parent not in counted:
        raise ItemFailure(
            f"question {question.id} depends on question {parent}, which the prompt does not have (in mode official: "
            "any more, where that was the file's first row)"
        )
    return counted[parent]


def _official_zeroing(questions: Sequence[DpgQuestion], answered: Mapping[int, float]) -> dict[int, float]:
    counted = dict(answered)
    for question in questions:
        for parent in question.parents:  # looked up one by one: a missing parent behind a zero is not noticed
            if parent != 0 and _parent(counted, parent, question) == 0:
                counted[question.id] = 0.0
                break
    return counted


def _fixed_zeroing(questions: Sequence[DpgQuestion], answered: Mapping[int, float]) -> dict[int, float]:
    children: dict[int, list[int]] = {}
    for question in questions:
        for parent in question.parents:
            if parent != 0:
                _parent(answered, parent, question)
                children.setdefault(parent, []).append(question.id)
    counted = dict(answered)
    zeros = [number for number, value in answered.items() if value == 0]
    while zeros:  # from every no downwards; also ends where questions depend on each other in a circle
        for child in children.get(zeros.pop(), ()):
            if counted[child] != 0:
                counted[child] = 0.0
                zeros.append(child)
    return counted


ZEROING: dict[str, Callable[[Sequence[DpgQuestion], Mapping[int, float]], dict[int, float]]] = {
    "official": _official_zeroing,
    "fixed": _fixed_zeroing,
}


def score_image(questions: Sequence[DpgQuestion], answers: Sequence[str], mode: str) -> DpgScore:
    """Score one image from its raw answers, aligned with `questions`.

    Raises:
        ItemFailure: a question depends on one that the prompt does not have, or there are no questions.
    """
    if not questions:
        raise ItemFailure("no questions about this prompt (in mode official the file's first row is dropped)")
    answered = {q.id: float(answer == "yes") for q, answer in zip(questions, answers, strict=True)}
    counted = ZEROING[mode](questions, answered)
    return DpgScore([answered[q.id] for q in questions], [counted[q.id] for q in questions])


def categorized(
    questions: Sequence[DpgQuestion], scores: Sequence[DpgScore], mode: str
) -> Iterator[tuple[DpgQuestion, float]]:
    """The answers about a prompt's images that count for categories: officially those about the last image alone, as
    they were before zeroing."""
    for image in scores[-1:] if mode == "official" else scores:
        yield from zip(questions, image.answered if mode == "official" else image.counted, strict=True)


def summarize(items: Items, images: Mapping[str, Sequence[DpgScore]], mode: str) -> Summary:
    """Summary of the scored images of each prompt, in their order; prompts without any are left out.

    Raises:
        DataError: no image was scored.
    """
    images = {item_id: scores for item_id, scores in images.items() if scores}
    if not images:
        raise DataError("DPG-Bench summary: no image was scored")
    broad: dict[str, list[float]] = {}
    detailed: dict[str, list[float]] = {}
    for item_id, scores in images.items():
        for question, value in categorized(items[item_id], scores, mode):
            detailed.setdefault(question.category, []).append(value)
            broad.setdefault(question.broad, []).append(value)
    return Summary(
        overall=fmean(fmean(image.score for image in scores) for scores in images.values()),
        broad={name: fmean(values) for name, values in sorted(broad.items())},
        detailed={name: fmean(values) for name, values in sorted(detailed.items())},
    )
