"""Golden cases of OneIG-Bench's alignment: what the published code made of made-up answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from promptecho.benchmarks.dpg.questions import DpgQuestion
from promptecho.benchmarks.golden_case import Check, differs
from promptecho.benchmarks.oneig_alignment.rules import YES, counted, image_score, prompts_mean


def _near(name: str, found: float, expected: float) -> list[str]:
    return [] if math.isclose(found, expected, rel_tol=1e-12, abs_tol=1e-15) else differs(name, found, expected)


def _images(prompt: Mapping[str, Any]) -> list[float]:
    """The scores of a prompt's images, from the answers to each question."""
    questions = [
        DpgQuestion(n, f"question {n}", tuple(parents), "", n - 1) for n, parents in enumerate(prompt["parents"], 1)
    ]
    return [
        image_score(counted(questions, {n: float(answer == YES) for n, answer in enumerate(answers, 1)}))
        for answers in prompt["answers_by_image"]
    ]


def check_prompt(case: Mapping[str, Any]) -> list[str]:
    """The images of one prompt and their mean."""
    images = _images(case)
    return _near("score", sum(images) / len(images), case["expected"])


def check_summary(case: Mapping[str, Any]) -> list[str]:
    """Prompts of several classes, and the mean of all."""
    images = {f"{name}_{n}": _images(one) for name, some in case["classes"].items() for n, one in enumerate(some)}
    return _near("alignment", prompts_mean(images), case["expected"])


CHECKS = {
    "oneig_alignment/prompts.jsonl": Check(frozenset({"parents", "answers_by_image"}), check_prompt),
    "oneig_alignment/summary.jsonl": Check(frozenset({"classes"}), check_summary),
}
