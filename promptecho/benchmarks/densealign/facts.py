"""How much an image shows of what a caption of the shapes world claims, and which of two shows more. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from promptecho.benchmarks.densealign.rules import Preference
from promptecho.shapes.grammar import Claim, Group
from promptecho.shapes.oracle import WELL_FORMED, DetectedShape, directions, judge


@dataclass(frozen=True, order=True)
class Fulfilment:
    """How much of a claim an image shows. Ordered: an image that shows the claim and nothing else is better than every
    other; then more `facts` is better, then fewer `extras`."""

    exact: bool
    facts: int
    extras_negated: int

    @property
    def extras(self) -> int:
        return -self.extras_negated


def fulfilment(claim: Claim, detections: Sequence[DetectedShape]) -> Fulfilment:
    """Count the facts of a claim that hold in an image, and the objects that it does not speak of.

    Facts: each claimed object (there is one of its shape), the colour of each, each group's number, and the relation.
    Extras: objects left over, and broken ones. Exact is what `shapes.oracle.judge` accepts.
    """
    left = [d for d in detections if d.score >= WELL_FORMED]
    matched: dict[Group, list[DetectedShape]] = {group: [] for group in claim.groups}
    facts = 0
    for with_color in (True, False):  # right objects first, then those right but for their colour
        for group, chosen in matched.items():
            fits = [d for d in left if d.shape == group.shape and (not with_color or group.color in (None, d.color))]
            taken = fits[: group.count - len(chosen)]
            chosen += taken
            left = [d for d in left if d not in taken]
            facts += len(taken) * (2 if with_color and group.color else 1)
    for group, chosen in matched.items():
        facts += len(chosen) == group.count and all(d.shape != group.shape for d in left)
    if claim.relation and all(matched.values()):
        first, second = (chosen[0] for chosen in matched.values())
        facts += claim.relation in directions(first, second)
    broken = sum(d.score < WELL_FORMED for d in detections)
    return Fulfilment(judge(claim, list(detections)), facts, -(len(left) + broken))


def compare(a: Fulfilment, b: Fulfilment) -> Preference:
    """Which image shows more of a claim; symmetric in `a` and `b`."""
    return "tie" if a == b else "image_a" if a > b else "image_b"
