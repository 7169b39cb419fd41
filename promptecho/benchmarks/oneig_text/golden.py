"""Golden cases of OneIG-Bench's text: what the published code made of made-up texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from promptecho.benchmarks.golden_case import Check, differs
from promptecho.benchmarks.longtext.rules import without_stock_phrases
from promptecho.benchmarks.oneig_text.rules import (
    TextMatch,
    completion,
    match_texts,
    max_new_tokens,
    reference,
    text_score,
    word_accuracy,
)


def _matches(texts: Sequence[str], answers: Sequence[str]) -> list[TextMatch]:
    """The images of one prompt."""
    wanted = reference(texts, "official")
    return [match_texts(wanted, without_stock_phrases(answer, "fixed")) for answer in answers]


def _near(name: str, found: float, expected: float) -> list[str]:
    return [] if math.isclose(found, expected, rel_tol=1e-12, abs_tol=1e-15) else differs(name, found, expected)


def check_prompt(case: Mapping[str, Any]) -> list[str]:
    """The images of one prompt: means of ED, CR and of the images' own word accuracy, and how long an answer may be."""
    matches, expected = _matches(case["texts"], case["answers"]), case["expected"]
    own = sum(match.matched / match.required for match in matches) / len(matches)
    return [
        *differs("tokens", max_new_tokens(reference(case["texts"], "official")), expected["max_new_tokens"]),
        *_near("ED", sum(match.edits for match in matches) / len(matches), expected["ED"]),
        *_near("CR", completion(matches), expected["CR"]),
        *_near("WAC", own, expected["WAC"]),
    ]


def check_summary(case: Mapping[str, Any]) -> list[str]:
    """Many prompts: ED, CR, WAC and the score."""
    matches = [one for prompt in case["prompts"] for one in _matches(prompt["texts"], prompt["answers"])]
    expected = case["expected"]
    return [
        *_near("ED", sum(match.edits for match in matches) / len(matches), expected["ED"]),
        *_near("CR", completion(matches), expected["CR"]),
        *_near("WAC", word_accuracy(matches), expected["WAC"]),
        *_near("text score", text_score(matches, case["language"]), expected["text score"]),
    ]


CHECKS = {
    "oneig_text/prompts.jsonl": Check(frozenset({"texts", "answers"}), check_prompt),
    "oneig_text/summary.jsonl": Check(frozenset({"prompts", "language"}), check_summary),
}
