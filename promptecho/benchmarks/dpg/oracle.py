"""Answers to questions about images of the shapes world, read from the pixels.

The questions are those that shapes.py writes: whether a shape is there, its colour, its number, its position as seen
from another, and how many objects there are in all. Said of several alike, a colour or place must hold for all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from promptecho.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

    from promptecho.shapes.oracle import DetectedShape

Predicate = Callable[[list["DetectedShape"]], bool]  # of all detections of an image


class OracleVqa:
    """`Vqa` of the shapes world: answers "yes" or "no"."""

    name = "oracle"

    def answers(self, image: Image.Image, questions: Sequence[str]) -> list[str]:
        """Raises:
        DataError: a question is none of shapes.py's.
        """
        from promptecho.shapes.oracle import detect

        asked = [read_question(question) for question in questions]
        found = detect(image)
        return ["yes" if answer(found) else "no" for answer in asked]


def read_question(question: str) -> Predicate:
    """What answers a question.

    Raises:
        DataError: it is not in the language of shapes.py.
    """
    from promptecho.shapes.grammar import LONG_RELATION, plural
    from promptecho.shapes.world import COLORS, NUMBERS, SHAPES

    names = {name: shape for shape in SHAPES for name in (shape, plural(shape))}
    name, color, number = "|".join(names), "|".join(COLORS), "|".join(NUMBERS)
    relations = {words: relation for relation, words in LONG_RELATION.items()}
    forms: list[tuple[str, Callable[..., Predicate]]] = [
        (rf"(?:is there an?|are there) ({name})", lambda a: lambda found: bool(_those(found, names[a]))),
        (
            rf"(?:is|are) the ({name}) ({color})",
            lambda a, c: lambda found: {d.color for d in _those(found, names[a])} == {c},
        ),
        (
            rf"are there exactly ({number}) ({name})",
            lambda n, a: lambda found: len(_those(found, names[a])) == NUMBERS.index(n),
        ),
        (
            rf"(?:is|are) the ({name}) ({'|'.join(relations)}) the ({name})",
            lambda a, r, b: lambda found: _lies(found, names[a], relations[r], names[b]),
        ),
        (
            rf"does the image show exactly ({number}) objects?",
            lambda n: lambda found: len(found) == NUMBERS.index(n),
        ),
    ]
    text = " ".join(question.split()).removesuffix("?").lower()
    for pattern, answer in forms:
        if match := re.fullmatch(pattern, text):
            return answer(*match.groups())
    raise DataError(
        f"backend oracle: the question {question!r} is not one about shapes; use backend mplug or judge for real images"
    )


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
