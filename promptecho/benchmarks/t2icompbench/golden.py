"""Golden cases of T2I-CompBench++: what the published code made of made-up answers, features and boxes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from promptecho.benchmarks.golden_case import Check, differs
from promptecho.benchmarks.t2icompbench.rules import (
    NamedBox,
    asked_phrases,
    attribute_score,
    cosine,
    numeracy_score,
    place_of,
    question,
    spatial_score,
    yes_probability,
)


def check_blip_vqa(case: Mapping[str, Any]) -> list[str]:
    """One image: what is asked of a prompt's noun phrases, the probabilities by the logits of "yes" and "no", and their
    product."""
    expected = case["expected"]
    probabilities = [yes_probability(*both) for both in case["logits"]]
    return [
        *differs(
            "questions", [question(phrase) for phrase in asked_phrases(case["noun_chunks"])], expected["questions"]
        ),
        *differs("probabilities", probabilities, expected["probabilities"]),
        *differs("score", attribute_score(expected["probabilities"]), expected["score"]),
    ]


def check_clip_score(case: Mapping[str, Any]) -> list[str]:
    """One image: the cosine of two vectors, in float32."""
    found = cosine(*(np.array(case[key], np.float32) for key in ("image_features", "text_features")))
    return [] if math.isclose(found, case["expected"], abs_tol=1e-6) else differs("score", found, case["expected"])


def check_spatial(case: Mapping[str, Any]) -> list[str]:
    """One image: two objects by their boxes."""
    first, second = case["objects"]
    return _near(spatial_score(_boxes(case), (first, second), place_of(case["prompt"])), case["expected"])


def check_numeracy(case: Mapping[str, Any]) -> list[str]:
    """One image: numbers of objects by their boxes."""
    return _near(numeracy_score(_boxes(case), [(name, count) for name, count in case["counts"]]), case["expected"])


def _boxes(case: Mapping[str, Any]) -> list[NamedBox]:
    return [NamedBox(one["name"], tuple(one["box"]), one["score"]) for one in case["boxes"]]


def _near(found: float, expected: float) -> list[str]:
    return [] if math.isclose(found, expected, rel_tol=1e-12) else differs("score", found, expected)


CHECKS = {
    "t2icompbench/blip_vqa.jsonl": Check(frozenset({"noun_chunks", "logits"}), check_blip_vqa),
    "t2icompbench/clip_score.jsonl": Check(frozenset({"image_features", "text_features"}), check_clip_score),
    "t2icompbench/spatial.jsonl": Check(frozenset({"boxes", "objects"}), check_spatial),
    "t2icompbench/numeracy.jsonl": Check(frozenset({"boxes", "counts"}), check_numeracy),
}
