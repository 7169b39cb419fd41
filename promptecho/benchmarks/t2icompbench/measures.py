"""From an image to its score: each category's rule over what a backend can tell of an image.

A backend gives what it can: probabilities of "yes" about noun phrases, the cosine of image and text, or boxes. Each of
the functions here makes a measure of one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from promptecho.benchmarks.t2icompbench.prompts import CompbenchPrompt
from promptecho.benchmarks.t2icompbench.rules import (
    NamedBox,
    asked_phrases,
    attribute_score,
    numeracy_score,
    spatial_score,
)

Probabilities = Callable[[Image.Image, Sequence[str]], list[float]]  # of "yes" about each phrase
Similarity = Callable[[Image.Image, str], float]
FindBoxes = Callable[[Image.Image], list[NamedBox]]  # those that a detector is surest of first
ScoreAndFacts = tuple[float, dict[str, Any]]  # the score, and the facts that it follows from
Measure = Callable[[Image.Image, CompbenchPrompt], ScoreAndFacts]


def by_phrases(probabilities: Probabilities) -> Measure:
    """For color, shape and texture."""

    def measure(image: Image.Image, prompt: CompbenchPrompt) -> ScoreAndFacts:
        asked = asked_phrases(prompt.phrases)
        found = probabilities(image, asked)
        facts = [{"phrase": phrase, "probability": value} for phrase, value in zip(asked, found, strict=True)]
        return attribute_score(found), {"phrases": facts}

    return measure


def by_similarity(similarity: Similarity) -> Measure:
    """For non_spatial. A cosine below 0 scores 0, since an outcome lies in 0-1; the facts have it as it is."""

    def measure(image: Image.Image, prompt: CompbenchPrompt) -> ScoreAndFacts:
        cosine = similarity(image, prompt.prompt)
        return min(1.0, max(0.0, cosine)), {"cosine": cosine}

    return measure


def by_places(find: FindBoxes) -> Measure:
    """For spatial."""

    def measure(image: Image.Image, prompt: CompbenchPrompt) -> ScoreAndFacts:
        found = find(image)
        first, second = prompt.objects
        return spatial_score(found, (first, second), prompt.place), _told(found)

    return measure


def by_counts(find: FindBoxes) -> Measure:
    """For numeracy."""

    def measure(image: Image.Image, prompt: CompbenchPrompt) -> ScoreAndFacts:
        found = find(image)
        return numeracy_score(found, prompt.counts), _told(found)

    return measure


def _told(found: Sequence[NamedBox]) -> dict[str, Any]:
    return {"boxes": [{"name": one.name, "box": list(one.box), "score": one.score} for one in found]}
