"""Golden cases of LongText-Bench: what the published code made of made-up texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptecho.benchmarks.golden_case import Check, differs
from promptecho.benchmarks.longtext.rules import matched_units, without_stock_phrases


def _counts(row: Mapping[str, Any], language: str) -> tuple[int, int]:
    """Units that were read, and all that are required."""
    found = matched_units(row["ocr_gt"], row["ocr_results"], language)
    return sum(there for _, there in found), len(found)


def check_image(case: Mapping[str, Any]) -> list[str]:
    """One image: how many units are required and how many were read."""
    matched, required = _counts(case, case["mode"])
    found = {"match_word_count": matched, "gt_word_count": required, "text_accuray": matched / required}
    return differs("counts", found, case["expected"])


def check_summary(case: Mapping[str, Any]) -> list[str]:
    """Many images: the score as the published code prints it."""
    counts = [_counts(row, case["mode"]) for row in case["rows"]]
    score = sum(matched for matched, _ in counts) / sum(required for _, required in counts)
    return differs("score", f"Text Score: {score:.4f}\n", case["expected"])


def check_answer(case: Mapping[str, Any]) -> list[str]:
    """A model's answer without its stock phrases."""
    found = without_stock_phrases(case["model_answer"], "official")
    return differs("answer", found, case["expected"])


CHECKS = {
    "longtext/images.jsonl": Check(frozenset({"ocr_gt", "ocr_results"}), check_image),
    "longtext/summary.jsonl": Check(frozenset({"rows", "mode"}), check_summary),
    "longtext/answers.jsonl": Check(frozenset({"model_answer"}), check_answer),
}
