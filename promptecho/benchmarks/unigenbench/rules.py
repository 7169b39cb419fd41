"""UniGenBench's scores as pure functions (github.com/CodeGoat24/UniGenBench).

A test point is right (1) or wrong (0). A sub-dimension is the share of its test points that are right, over all images;
a dimension the share of those of all its sub-dimensions, so that a frequent sub-dimension counts for more. The
published code says no more; `overall` is the plain mean of the dimensions, as users of the published tables found.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

from promptecho.benchmarks.unigenbench.dimensions import DIMENSIONS, PARTS, dimension_of

OVERALL = "overall"


def accuracies(points: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Name -> share of right test points, of pairs (sub-dimension, 1 or 0): `overall`, then the dimensions and the
    sub-dimensions that occur, in the order of the published tables."""
    found: dict[str, list[float]] = {}
    for subdimension, right in points:
        for name in {subdimension, dimension_of(subdimension)}:
            found.setdefault(name, []).append(right)
    named = {name: fmean(found[name]) for name in (*DIMENSIONS, *PARTS) if name in found}
    return {OVERALL: fmean(named[name] for name in DIMENSIONS if name in named), **named}
