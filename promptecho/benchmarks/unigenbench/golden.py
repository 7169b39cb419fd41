"""Golden cases of UniGenBench: what the published code made of made-up replies and scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from promptecho.benchmarks.golden_case import Check, differs
from promptecho.benchmarks.unigenbench import reply
from promptecho.benchmarks.unigenbench.dimensions import DIMENSIONS, SUBDIMENSIONS
from promptecho.benchmarks.unigenbench.rules import OVERALL, accuracies


def _compare(found: Iterable[tuple[str, int]], language: str, expected: Mapping[str, Sequence[int]]) -> list[str]:
    """Test points, as (name in prompt files, 1 or 0), against name -> [right, all] of dimensions and sub-dimensions."""
    points = [(SUBDIMENSIONS[language][name], right) for name, right in found]
    shares = accuracies(points)
    dimensions = [shares[name] for name in DIMENSIONS if name in shares]
    mean = sum(dimensions) / len(dimensions)
    english = {**SUBDIMENSIONS[language], **_DIMENSIONS.get(language, {})}
    wanted = {english.get(name, name): right / count for name, (right, count) in expected.items()}
    return [
        *differs("names", sorted(shares), sorted({OVERALL, *wanted})),
        *(problem for name, value in wanted.items() for problem in differs(name, shares.get(name), value)),
        *differs("overall", round(shares[OVERALL], 12), round(mean, 12)),
    ]


# What the published code calls the Chinese dimensions: what stands before the hyphen.
_DIMENSIONS = {
    "zh": {name.partition("-")[0]: english.partition(" - ")[0] for name, english in SUBDIMENSIONS["zh"].items()}
}


def check_reply(case: Mapping[str, Any]) -> list[str]:
    """One reply: the scores that the published code counts, or null where it asks again or counts none."""
    try:
        scores = reply.parse(case["reply"], len(case["testpoints"]))
    except ValueError:
        return differs("reply", None, case["expected"])
    if case["expected"] is None:
        return differs("reply", scores, None)
    return _compare(zip(case["testpoints"], scores, strict=True), case["language"], case["expected"])


def check_scores(case: Mapping[str, Any]) -> list[str]:
    """Many images: right and all test points of each dimension and sub-dimension."""
    points = [
        (name, score)
        for names, images in zip(case["testpoints"], case["scores"], strict=True)
        for scores in images
        for name, score in zip(names, scores, strict=True)
    ]
    return _compare(points, case["language"], case["expected"])


CHECKS = {
    "unigenbench/replies.jsonl": Check(frozenset({"testpoints", "reply"}), check_reply),
    "unigenbench/scores.jsonl": Check(frozenset({"testpoints", "scores"}), check_scores),
}
