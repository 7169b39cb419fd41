"""Answers to questions about images of the gallery, read from the pixels.

The questions are those that gallery.py writes. A malformed thing is of no shape, so it answers no question that names
one; but it has a colour, and it is an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from promptecho.benchmarks.dpg.forms import Form, Predicate, find_form, object_forms, yes_or_no
from promptecho.errors import DataError
from promptecho.gallery.captions import SAID_SIZES, SAID_TEXTURES
from promptecho.gallery.look_oracle import WELL_FORMED, DetectedThing, detect_things
from promptecho.shapes.oracle import directions
from promptecho.shapes.world import COLORS, SHAPES

if TYPE_CHECKING:
    from PIL import Image


class GalleryVqa:
    """`Vqa` of the gallery: answers "yes" or "no"."""

    name = "the gallery's oracle"

    def answers(self, image: Image.Image, questions: Sequence[str]) -> list[str]:
        """Raises:
        DataError: a question is none of gallery.py's.
        """
        asked = [read_question(question) for question in questions]
        return yes_or_no(asked, detect_things(image))


def read_question(question: str) -> Predicate:
    """What answers a question.

    Raises:
        DataError: it is not in the language of gallery.py.
    """
    if (answer := find_form(question, FORMS)) is None:
        raise DataError(
            f"backend gallery: the question {question!r} is not one about scenes of the gallery; use backend mplug or "
            "judge for real images"
        )
    return answer


def _those(found: list[DetectedThing], shape: str) -> list[DetectedThing]:
    return [thing for thing in found if thing.look.shape == shape and thing.score >= WELL_FORMED]


def _lies(found: list[DetectedThing], shape: str, direction: str, other: str) -> bool:
    """Whether any of a shape lies there as seen from any of the other, as for the facts of captions."""
    return any(
        direction in directions(a, b)  # type: ignore[arg-type]  # it reads `box` alone
        for a in _those(found, shape)
        for b in _those(found, other)
        if a is not b
    )


_NEGATIONS: list[Form] = [
    (rf"is there no ({'|'.join(SHAPES)})", lambda a: lambda found: not _those(found, a)),
    (
        rf"is there no ({'|'.join(COLORS)}) object",
        lambda c: lambda found: all(thing.look.color != c for thing in found),
    ),
]
FORMS = [
    *object_forms(
        _those,
        dict.fromkeys(COLORS, lambda thing: thing.look.color)
        | dict.fromkeys(SAID_SIZES, lambda thing: thing.look.size)
        | dict.fromkeys(SAID_TEXTURES, lambda thing: thing.look.texture),
        _lies,
    ),
    *_NEGATIONS,
]
