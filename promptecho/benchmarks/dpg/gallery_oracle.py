"""Answers to questions about images of the gallery, read from the pixels.

The questions are those that gallery.py writes. A malformed thing is of no shape, so it answers no question that names
one; but it has a colour, and it is an object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from promptecho.benchmarks.dpg.forms import Form, WorldVqa, object_forms
from promptecho.gallery.captions import SAID_SIZES, SAID_TEXTURES
from promptecho.gallery.look_oracle import WELL_FORMED, DetectedThing, detect_things
from promptecho.shapes.oracle import directions
from promptecho.shapes.world import COLORS, SHAPES


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
_VALUES: dict[str, Callable[[Any], str]] = {
    **dict.fromkeys(COLORS, lambda thing: thing.look.color),
    **dict.fromkeys(SAID_SIZES, lambda thing: thing.look.size),
    **dict.fromkeys(SAID_TEXTURES, lambda thing: thing.look.texture),
}
GALLERY_VQA = WorldVqa(
    name="the gallery's oracle",
    backend="gallery",
    about="scenes of the gallery",
    look=detect_things,
    forms=[*object_forms(_those, _VALUES, _lies), *_NEGATIONS],
)
