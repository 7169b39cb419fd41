"""Answers to questions about images of the shapes world, read from the pixels.

The questions are those that shapes.py writes: whether a shape is there, its colour, its number, its position as seen
from another, and how many objects there are in all. Said of several alike, a colour or place must hold for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from promptecho.benchmarks.dpg.forms import Predicate, find_form, object_forms, yes_or_no
from promptecho.errors import DataError
from promptecho.shapes.world import COLORS

if TYPE_CHECKING:
    from PIL import Image

    from promptecho.shapes.oracle import DetectedShape


class OracleVqa:
    """`Vqa` of the shapes world: answers "yes" or "no"."""

    name = "oracle"

    def answers(self, image: Image.Image, questions: Sequence[str]) -> list[str]:
        """Raises:
        DataError: a question is none of shapes.py's.
        """
        from promptecho.shapes.oracle import detect

        asked = [read_question(question) for question in questions]
        return yes_or_no(asked, detect(image))


def read_question(question: str) -> Predicate:
    """What answers a question.

    Raises:
        DataError: it is not in the language of shapes.py.
    """
    if (answer := find_form(question, FORMS)) is None:
        raise DataError(
            f"backend oracle: the question {question!r} is not one about shapes; use backend mplug or judge for real "
            "images"
        )
    return answer


def _those(found: list[DetectedShape], shape: str) -> list[DetectedShape]:
    """The whole objects of a shape; a broken one is none."""
    from promptecho.shapes.oracle import WELL_FORMED

    return [d for d in found if d.shape == shape and d.score >= WELL_FORMED]


def _lies(found: list[DetectedShape], shape: str, relation: str, other: str) -> bool:
    from promptecho.shapes.grammar import Claim, Group
    from promptecho.shapes.oracle import judge

    pairs = [(a, b) for a in _those(found, shape) for b in _those(found, other) if a is not b]
    return bool(pairs) and all(
        judge(Claim((Group(1, shape, a.color), Group(1, other, b.color)), relation), [a, b]) for a, b in pairs
    )


FORMS = object_forms(_those, dict.fromkeys(COLORS, lambda one: one.color), _lies)
