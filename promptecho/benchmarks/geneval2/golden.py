"""Golden cases of GenEval 2: what the published code made of made-up probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from promptecho.benchmarks.geneval2.rules import (
    answer_probability,
    arithmetic_mean,
    asked,
    first_tokens,
    geometric_mean,
    group_of,
    spellings,
)
from promptecho.benchmarks.geneval2.scorer import parts_of, summary_of
from promptecho.benchmarks.golden_case import Check, differs
from promptecho.scores import ScoreItem

FLOAT32 = 1e-5  # the published code has logits and softmax in float32


def _near(name: str, found: float, expected: float, relative: float) -> list[str]:
    return [] if math.isclose(found, expected, rel_tol=relative, abs_tol=1e-12) else differs(name, found, expected)


def check_atoms(case: Mapping[str, Any]) -> list[str]:
    """One image: what is asked, the score of each atom from the logits of the first token, and both means.
    `answer_tokens` are the tokens of each spelling of an answer."""
    expected, problems, scores = case["expected"], [], []
    for (question, answer), logits in zip(case["vqa_list"], case["logits"], strict=True):
        top = max(logits)
        weights = [math.exp(value - top) for value in logits]
        tokens = first_tokens(spellings(question, answer), case["answer_tokens"].__getitem__)
        scores.append(answer_probability(weights[token] / math.fsum(weights) for token in tokens))
    for place, (found, wanted) in enumerate(zip(scores, expected["scores"], strict=True)):
        problems += _near(f"score {place}", found, wanted, FLOAT32)
    return [
        *differs("asked", [asked(question) for question, _ in case["vqa_list"]], case["asked"]),
        *problems,
        *_near("am", arithmetic_mean(expected["scores"]), expected["am"], 1e-12),
        *_near("gm", geometric_mean(expected["scores"]), expected["gm"], 1e-12),
    ]


def check_analysis(case: Mapping[str, Any]) -> list[str]:
    """Many images: means by skill and by atomicity, AM and GM of all, in percent."""
    items, raw = [], []
    for place, (scores, skills, count) in enumerate(
        zip(case["score_lists"], case["skill_lists"], case["atomicities"], strict=True)
    ):
        key = {"prompt_id": str(place), "image_index": 0, "group": group_of(count)}
        atoms = [{"skill": skill, "probability": score} for skill, score in zip(skills, scores, strict=True)]
        items.append(ScoreItem(**key, outcome=geometric_mean(scores), failed=False))
        raw.append({**key, "failed": False, "am": arithmetic_mean(scores), "atoms": atoms})
    found, expected = summary_of(items, parts_of(raw)), case["expected"]
    wanted = {"overall": expected["gm"], "am": expected["am"], **expected["skills"]}
    wanted |= {group_of(int(count)): value for count, value in expected["atomicity"].items()}
    return [
        *differs("names", sorted(found), sorted(wanted)),
        *(problem for name, value in wanted.items() for problem in _near(name, 100 * found[name], value, 1e-12)),
    ]


CHECKS = {
    "geneval2/atoms.jsonl": Check(frozenset({"answer_tokens", "logits"}), check_atoms),
    "geneval2/analysis.jsonl": Check(frozenset({"score_lists", "atomicities"}), check_analysis),
}
