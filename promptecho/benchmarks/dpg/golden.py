"""Golden scenarios of DPG-Bench: a question file, raw answers of every image, and what the official evaluator said."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import fmean
from typing import Any

from promptecho.benchmarks.dpg.questions import read_rows
from promptecho.benchmarks.dpg.rules import DpgScore, ItemFailure, items_of, score_image, summarize
from promptecho.benchmarks.golden_case import Check

TOLERANCE = 1e-9  # of percent, and of fractions


def _near(found: float, expected: float | None) -> bool:
    if expected is None or math.isnan(expected):
        return math.isnan(found)
    return abs(found - expected) <= TOLERANCE


def _differ(name: str, found: dict[str, float], expected: dict[str, float]) -> list[str]:
    if sorted(found) != sorted(expected):
        return [f"{name}: expected {sorted(expected)}, found {sorted(found)}"]
    return [
        f"{name} {key}: expected {expected[key]!r}, found {value!r}"
        for key, value in found.items()
        if not _near(value, expected[key])
    ]


def check_dpg_scenario(case: dict[str, Any], folder: Path) -> list[str]:
    """One run of the official evaluator in one process: scores of all images and prompts, names of the failed files,
    categories and Overall. `folder` holds the question files.

    Raises:
        DataError: the question file is missing or faulty.
    """
    items = items_of(read_rows(folder / Path(case["csv"]).name), "official")
    answers, expected = case["answers_item_crop_question"], case["expected"]
    images: dict[str, list[DpgScore]] = {}
    failed = list(case.get("extra_files", ()))  # whatever they are: no image, or an image of no prompt
    for item_id in case["items_with_images"]:
        questions = items.get(item_id, [])
        if not questions:
            failed.append(f"{item_id}.png")
            continue
        try:
            images[item_id] = [
                score_image(questions, [crop[question.nth] for question in questions], "official")
                for crop in answers[item_id][: case["pic_num"]]
            ]
        except ItemFailure:
            failed.append(f"{item_id}.png")
    per_item = {
        item_id: {str(i): image.score for i, image in enumerate(scores)} | {"score": fmean(s.score for s in scores)}
        for item_id, scores in images.items()
    }
    wanted = {
        item_id: {str(i): value for i, value in enumerate(row["crop_scores"])} | {"score": row["score"]}
        for item_id, row in expected["per_item"].items()
    }
    problems = []
    if sorted(per_item) != sorted(wanted):
        problems.append(f"items: expected {sorted(wanted)}, found {sorted(per_item)}")
    for item_id in sorted(per_item.keys() & wanted.keys()):
        problems += _differ(item_id, per_item[item_id], wanted[item_id])
    if sorted(failed) != sorted(name for name, _ in expected["failed"]):
        problems.append(f"failed: expected {sorted(name for name, _ in expected['failed'])}, found {sorted(failed)}")
    if not images:  # officially the mean of nothing
        return problems + ([] if _near(math.nan, expected["overall"]) else ["overall: no prompt could be scored"])
    summary = summarize(items, images, "official")
    for name, found in (("l1", summary.broad), ("l2", summary.detailed), ("", {"overall": summary.overall})):
        target = expected[name] if name else {"overall": expected["overall"]}
        problems += _differ(name, {key: 100 * value for key, value in found.items()}, target)
    return problems


CHECKS = {
    "dpg/scenarios.jsonl": Check(
        frozenset({"answers_item_crop_question"}), check_dpg_scenario, lambda golden, file, prompts: file.parent
    ),
}
