"""The embedded world's own eye: noun phrases are true or not, and boxes are those of the shapes.

The oracle knows one answer, so that a probability is 1 or 0. A broken shape is none. There is no cosine, and the world
has no textures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from promptecho.benchmarks.t2icompbench.measures import Measure, by_counts, by_phrases, by_places
from promptecho.benchmarks.t2icompbench.rules import NamedBox
from promptecho.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

    from promptecho.shapes.oracle import DetectedShape


def _shapes(image: Image.Image) -> list[DetectedShape]:
    from promptecho.shapes.oracle import WELL_FORMED, detect

    return [one for one in detect(image) if one.score >= WELL_FORMED]


def find_boxes(image: Image.Image) -> list[NamedBox]:
    """The shapes of an image, largest first."""
    return [NamedBox(one.shape, one.box, one.score) for one in _shapes(image)]


def phrase_probabilities(image: Image.Image, phrases: Sequence[str]) -> list[float]:
    """1 where an image has what a phrase names, such as "a red circle"; of a number of things, as many.

    Raises:
        DataError: a phrase is not one about shapes.
    """
    from promptecho.shapes.grammar import parse

    shapes, found = _shapes(image), []
    for phrase in phrases:
        try:
            (group,) = parse(phrase).groups
        except (DataError, ValueError):
            raise DataError(
                f"backend oracle: the phrase {phrase!r} is not one about shapes (promptecho shapes t2icompbench writes "
                "them); use backend blip for real images"
            ) from None
        count = sum(one.shape == group.shape and group.color in (None, one.color) for one in shapes)
        found.append(float(count == group.count if group.count > 1 else count > 0))
    return found


class CompbenchOracle:
    """`CompbenchEye` of the shapes world."""

    name = "oracle"

    def __init__(self) -> None:
        self.measures: Mapping[str, Measure] = {
            "color": by_phrases(phrase_probabilities),
            "shape": by_phrases(phrase_probabilities),
            "spatial": by_places(find_boxes),
            "numeracy": by_counts(find_boxes),
        }
