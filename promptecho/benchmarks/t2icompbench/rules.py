"""T2I-CompBench++'s measures as pure functions (github.com/Karine-Huang/T2I-CompBench).

- color, shape, texture (BLIPvqa_eval/BLIP_vqa.py): each noun phrase of the prompt is asked as a question ("a red
  fox?"); an image has the product of the probabilities of "yes".
- non_spatial (CLIPScore_eval/CLIP_similarity.py): the cosine of image and prompt.
- spatial (UniDet_eval/2D_spatial_eval.py): a quarter of each object's detection score, and half for their places.
- numeracy (UniDet_eval/numeracy_eval.py): half for each object that is there, half for its right number.

Scores lie in 0-1, but for the cosine, which measures.py clamps. What the published code does is done here, too:
probabilities and products are rounded to four decimals, a product is taken in float32, only eight phrases count, and a
spatial score below 0.5 is 0.
"""

from __future__ import annotations

import functools
import math
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CATEGORIES = {  # in the order of the paper's tables
    "color": "Color",
    "shape": "Shape",
    "texture": "Texture",
    "spatial": "2D-spatial",
    "non_spatial": "Non-spatial",
    "numeracy": "Numeracy",
}
ATTRIBUTES = ("color", "shape", "texture")

MOST_PHRASES = 8
NO_THINGS = ("top", "the side", "the left", "the right")  # noun phrases of "on top of", "on the left of"
QUESTION_SIGNS = re.compile(r"[.!\"()*#:;~]")
QUESTION_WORDS = 50

# Of several that a prompt has, the first one here counts.
PLACES = (
    "on side of", "next to", "near", "on the left of", "on the right of", "on the bottom of", "on the top of",
    "on top of",
)  # fmt: skip
BESIDE = ("next to", "on side of", "near")
NEAR = 150.0  # pixels between centres, along one axis
APART = 0.1  # intersection over union
SPATIAL_LEAST = 0.5
PEOPLE = ("girl", "boy", "man", "woman")
SAME_OBJECT = 0.9  # share of a box that lies in another
DETECTORS_WORDS = {
    **dict.fromkeys(PEOPLE, "person"), "ship": "boat", "telivision": "tv", "goldfish": "fish", "painting": "picture",
}  # fmt: skip


@dataclass(frozen=True)
class NamedBox:
    """An object found in an image: x1, y1, x2, y2 in pixels, y downwards; `score` in 0-1."""

    name: str
    box: tuple[float, float, float, float]
    score: float


def asked_phrases(phrases: Sequence[str]) -> list[str]:
    """The noun phrases of a prompt that are asked about."""
    return [phrase for phrase in phrases if phrase not in NO_THINGS][:MOST_PHRASES]


def question(phrase: str) -> str:
    """What BLIP-VQA is asked about a noun phrase."""
    text = QUESTION_SIGNS.sub("", f"{phrase}?".lower()).rstrip(" ")
    return " ".join(text.split(" ")[:QUESTION_WORDS])


def rounded(value: float) -> float:
    """To four decimals, as the published code writes numbers."""
    return float(f"{value:.4f}")


def yes_probability(yes: float, no: float) -> float:
    """How likely the answer is "yes", of "yes" and "no" alone; the arguments are logits of the answer's first token."""
    return rounded(1 / (1 + math.exp(min(no - yes, 700.0))))


def attribute_score(probabilities: Sequence[float]) -> float:
    """The product over an image's noun phrases."""
    return rounded(float(functools.reduce(operator.mul, map(np.float32, probabilities), np.float32(1))))


def cosine(image: np.ndarray, text: np.ndarray) -> float:
    """CLIPScore as this benchmark has it: the cosine of two feature vectors [D], neither scaled nor cut off at 0."""
    return float((image / np.linalg.norm(image)) @ (text / np.linalg.norm(text)))


def place_of(prompt: str) -> str | None:
    """The words for a place in a prompt."""
    return next((words for words in PLACES if words in prompt), None)


def _overlap(first: Sequence[float], second: Sequence[float], pixel: float = 0.0) -> tuple[float, float, float]:
    """The area that two boxes share, and each one's area; a box's last pixel belongs to it where `pixel` is 1."""
    sides = (min(first[k + 2], second[k + 2]) - max(first[k], second[k]) + pixel for k in (0, 1))
    width, height = (max(0.0, side) for side in sides)
    areas = [(box[2] - box[0] + pixel) * (box[3] - box[1] + pixel) for box in (first, second)]
    return width * height, areas[0], areas[1]


def place_score(place: str | None, first: Sequence[float], second: Sequence[float]) -> float:
    """How well the box `first` lies where `place` says, as seen from `second`."""
    dx, dy = ((second[k] + second[k + 2]) / 2 - (first[k] + first[k + 2]) / 2 for k in (0, 1))
    if place in BESIDE:
        return 1.0 if min(abs(dx), abs(dy)) < NEAR else NEAR / max(abs(dx), abs(dy))
    ways = {"on the right of": -dx, "on the left of": dx, "on the bottom of": -dy, "on the top of": dy}
    if place not in ways or ways[place] <= 0:
        return 0.0
    along, across = (dx, dy) if place in ("on the right of", "on the left of") else (dy, dx)
    if abs(along) <= abs(across):
        return 0.0
    shared, one, other = _overlap(first, second)
    overlap = shared / (one + other - shared)
    return 1.0 if overlap < APART else APART / overlap


def spatial_score(found: Sequence[NamedBox], objects: tuple[str, str], place: str | None) -> float:
    """Two objects, the first where `place` says as seen from the second; of several alike, the first found counts."""
    names = ["person" if name in PEOPLE else name for name in objects]
    there = [box for name in names if (box := next((one for one in found if one.name == name), None)) is not None]
    score = sum(0.25 * box.score for box in there)
    if len(there) == 2:
        score += place_score(place, there[0].box, there[1].box) / 2
    return score if score >= SPATIAL_LEAST else 0.0


def numeracy_score(found: Sequence[NamedBox], counts: Sequence[tuple[str, int]]) -> float:
    """Objects and how many there are to be; of boxes of one name that lie in each other, the first counts."""
    kept: list[NamedBox] = []
    for box in found:
        if not any(box.name == other.name and _is_within(box.box, other.box) for other in kept):
            kept.append(box)
    names, weight, score = [box.name for box in kept], 1.0 / len(counts), 0.0
    for name, count in counts:
        word = DETECTORS_WORDS.get(name, name)
        if word not in names:  # "bear" is then also "teddy bear"
            names = [word if word in other else other for other in names]
        if word in names:
            score += 0.5 * weight
            if names.count(word) == count:
                score += 0.5 * weight
    return score


def _is_within(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether two boxes are about one, or one lies in the other."""
    shared, one, other = _overlap(first, second, pixel=1.0)
    return shared > SAME_OBJECT * min(one, other, one + other - shared)
