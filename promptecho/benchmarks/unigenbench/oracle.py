"""Test points of the embedded worlds (shapes.py), judged by what an oracle finds in an image.

A description is a phrase of the captions' language ("three large red circles"), or "no star". What a sub-dimension asks
for is looked at alone: of "three red circles" Quantity counts the red circles, and Color looks whether circles are red.
A broken object is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from promptecho.benchmarks.unigenbench.prompts import PromptPoint
from promptecho.errors import DataError, ModelError
from promptecho.gallery.captions import DenseClaim, DenseGroup, parse_dense
from promptecho.shapes.world import COLORS, SHAPES

if TYPE_CHECKING:
    from PIL import Image

SAID = {"Attribute - Color": "color", "Attribute - Material": "texture", "Attribute - Size": "size"}
QUANTITY, SHAPE = "Attribute - Quantity", "Attribute - Shape"
FEATURES, LAYOUT = "Compound - Feature Matching", "Entity Layout - Two-Dimensional Space"
CONSISTENCY, NEGATION = "Grammar - Consistency", "Grammar - Negation"
_ABSENT = re.compile(rf"no (?:(?P<color>{'|'.join(COLORS)}) object|(?P<shape>{'|'.join(SHAPES)}))")


@dataclass(frozen=True)
class PointOracle:
    """What judges test points of one embedded world.

    Args:
        name: as score files call it.
        command: what writes its prompts, for errors.
        detect: the objects of an image, with a `box` and a `score`.
        look_of: of an object, what has its `shape` and `color`, and what else captions of that world say.
        least_score: of an object that is not broken.
    """

    name: str
    command: str
    detect: Callable[[Image.Image], Sequence[Any]]
    look_of: Callable[[Any], Any]
    least_score: float

    def scores(self, image: Image.Image, points: Sequence[PromptPoint]) -> list[int]:
        """1 for each test point that the image fulfils, 0 for each other.

        Raises:
            DataError: a test point is none of an embedded world's.
        """
        asked = [(point.subdimension, self._claim(point)) for point in points]
        found = [one for one in self.detect(image) if one.score >= self.least_score]
        return [int(self._holds(subdimension, claim, found)) for subdimension, claim in asked]

    def _claim(self, point: PromptPoint) -> DenseClaim:
        known = (*SAID, QUANTITY, SHAPE, FEATURES, LAYOUT, CONSISTENCY, NEGATION)
        match = _ABSENT.fullmatch(point.description)
        try:
            if point.subdimension not in known or bool(match) != (point.subdimension == NEGATION):
                raise DataError(f"the oracle does not judge {point.subdimension}")
            if match:
                return DenseClaim((), absent=(match["color"] or match["shape"],))
            claim = parse_dense(point.description)
            wanted = 2 if point.subdimension in (FEATURES, LAYOUT) else 1
            if len(claim.groups) != wanted or bool(claim.relations) != (point.subdimension == LAYOUT):
                raise DataError("it is about another number of things")
        except DataError as error:
            raise DataError(
                f"backend oracle: test point {point.name!r} with {point.description!r} is none of an embedded world "
                f"({error}); {self.command} writes such prompts; use backend judge for others"
            ) from None
        return claim

    def _holds(self, subdimension: str, claim: DenseClaim, found: Sequence[Any]) -> bool:
        if subdimension == NEGATION:
            [name] = claim.absent
            return not any(name in (self.look_of(one).shape, self.look_of(one).color) for one in found)
        those = [[one for one in found if self.look_of(one).shape == group.shape] for group in claim.groups]
        alike = [[one for one in some if self._is(one, group)] for some, group in zip(those, claim.groups, strict=True)]
        if subdimension == FEATURES:
            return all(alike)
        if subdimension == LAYOUT:
            from promptecho.shapes.oracle import directions

            [(first, direction, second)] = claim.relations
            pairs = list(product(alike[first], alike[second]))
            return bool(pairs) and all(direction in directions(a, b) for a, b in pairs)
        [group] = claim.groups
        if subdimension == QUANTITY:
            return len(alike[0]) == group.count
        if subdimension == SHAPE:
            return bool(those[0])
        if subdimension == CONSISTENCY:
            return len(those[0]) > 1 and len({self.look_of(one).color for one in those[0]}) == 1
        attribute = SAID[subdimension]
        wanted = getattr(group, attribute)
        return bool(those[0]) and all(getattr(self.look_of(one), attribute) == wanted for one in those[0])

    def _is(self, one: Any, group: DenseGroup) -> bool:
        """Whether an object is what a phrase says."""
        said = {key: getattr(group, key) for key in ("color", "size", "texture")}
        return all(getattr(self.look_of(one), key) == value for key, value in said.items() if value is not None)


def load_oracle(backend: str) -> PointOracle:
    """The oracle of a backend.

    Raises:
        ModelError: the name is unknown.
    """
    command = "promptecho shapes unigenbench"
    if backend == "oracle":
        from promptecho.shapes import oracle

        return PointOracle("oracle", command, oracle.detect, lambda one: one, oracle.WELL_FORMED)
    if backend == "gallery":
        from promptecho.gallery import look_oracle

        return PointOracle(
            "the gallery's oracle", f"{command} --world gallery", look_oracle.detect_things, lambda one: one.look,
            look_oracle.WELL_FORMED,
        )  # fmt: skip
    raise ModelError(f"backend {backend!r} is unknown; known backends: gallery, judge, oracle")
