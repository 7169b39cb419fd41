"""The oracle's threshold beside 399 generated objects that were labelled by eye, without their scores.

objects_by_eye.csv: objects of the demo's images (base model and promptecho-s1 @ 40, held-out captions and GenEval), of
2716 in all. Labelled were all whose IoU lies 0.03 to 0.12 below that of clean renders, and a sample on both sides;
`weight` is the number of objects for which one stands. Borderline is what one might let pass.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from promptecho.shapes.oracle import WELL_FORMED, score_of

OBJECTS = Path(__file__).with_name("objects_by_eye.csv")


@pytest.fixture(scope="module")
def refused():
    """Label -> share of its objects that the oracle calls broken."""
    weights: dict[str, list[float]] = {}
    for row in csv.DictReader(OBJECTS.open()):
        score = score_of(row["shape"], float(row["iou"]), float(row["stretch"]))
        total = weights.setdefault(row["label"], [0.0, 0.0])
        total[0] += float(row["weight"]) * (score < WELL_FORMED)
        total[1] += float(row["weight"])
    assert sum(total for _, total in weights.values()) == pytest.approx(2716, abs=1)
    return {label: share / total for label, (share, total) in weights.items()}


def test_shares_are_those_of_the_docs(refused):
    page = (Path(__file__).parents[2] / "docs/shapes.md").read_text()
    for label, share in refused.items():
        assert f"| {label} | {100 * share:.1f} %" in page, (label, share)


def test_hardly_any_well_formed_object_is_refused(refused):
    assert refused["well-formed"] < 0.03 < refused["borderline"] < 0.8 < refused["malformed"]
