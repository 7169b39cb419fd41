"""Answers to questions about images of the shapes world, read from the pixels.

The questions are those that shapes.py writes: whether a shape is there, its colour, its number, its position as seen
from another, and how many objects there are in all. Said of several alike, a colour or place must hold for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptecho.benchmarks.dpg.forms import WorldVqa, object_forms
from promptecho.shapes.world import COLORS

if TYPE_CHECKING:
    from PIL import Image

    from promptecho.shapes.oracle import DetectedShape


def _look(image: Image.Image) -> list[DetectedShape]:
    from promptecho.shapes.oracle import detect  # with scipy, which is not needed before the first image

    return detect(image)


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


ORACLE_VQA = WorldVqa(
    name="oracle",
    backend="oracle",
    about="shapes",
    look=_look,
    forms=object_forms(_those, dict.fromkeys(COLORS, lambda one: one.color), _lies),
)
