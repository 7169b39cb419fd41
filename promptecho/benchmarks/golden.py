"""Golden cases: inputs with the answers of the official evaluators; run them against this package.

A golden folder holds one folder per benchmark with JSON Lines files of a known kind (`geneval/cases.jsonl`, ...).
Kinds without a check here are listed by name, never passed over in silence.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from promptecho.benchmarks.geneval import colors, crops, scorer
from promptecho.benchmarks.geneval.prompts import Prompt, read_prompts
from promptecho.errors import DataError
from promptecho.files import read_jsonl

Mismatches = list[str]


@dataclass
class FileReport:
    """Result of one golden file."""

    file: str
    total: int = 0
    passed: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)


def _differs(name: str, found: Any, expected: Any) -> Mismatches:
    return [] if found == expected else [f"{name}: expected {expected!r}, found {found!r}"]


def _boxes(detections: list[scorer.Detection]) -> list[list[np.float32]]:
    return [list(detection.box) for detection in detections]


def _float32(boxes: list[list[float]]) -> list[list[np.float32]]:
    return [list(np.asarray(box, np.float32)) for box in boxes]


def check_geneval_case(case: dict, _: list[Prompt]) -> Mismatches:
    """One image: verdict, verbatim reason, kept boxes, boxes sent to the colour classifier."""
    options = scorer.Options(**case.get("options", {}))
    verdict = scorer.evaluate_image(case["metadata"], case["detections"], case["colors"], options)
    expected = case["expected"]
    return [
        *_differs("correct", verdict.correct, expected["correct"]),
        *_differs("reason", verdict.reason, expected["reason"]),
        *_differs(
            "kept",
            {name: _boxes(found) for name, found in verdict.kept.items()},
            {name: _float32(boxes) for name, boxes in expected["kept"].items()},
        ),
        *_differs(
            "color_queries",
            [(name, _boxes(found)) for name, found in verdict.color_queries],
            [(name, _float32(boxes)) for name, boxes in expected["color_queries"]],
        ),
    ]


def check_geneval_relation(case: dict, _: list[Prompt]) -> Mismatches:
    """Two boxes: relations and IoU."""
    return [
        *_differs("relations", sorted(scorer.relations(case["a"], case["b"])), sorted(case["relations_of_a_to_b"])),
        *_differs("iou", np.float32(scorer.iou(case["a"], case["b"])), np.float32(case["iou"])),
    ]


def check_geneval_crop(case: dict, _: list[Prompt]) -> Mismatches:
    """One object: the exact pixels that the colour classifier's transform gets."""
    from PIL import Image

    height, width, options = case["height"], case["width"], case["options"]
    image = Image.frombytes("RGB", (width, height), base64.b64decode(case["image_rgb_b64"]))
    mask = None
    if case["mask_b64"] is not None:
        bits = np.frombuffer(base64.b64decode(case["mask_b64"]), np.uint8)
        mask = np.unpackbits(bits, count=height * width).reshape(height, width).astype(bool)
    found = crops.object_crop(
        image,
        np.asarray(case["box"], np.float32),
        mask,
        background=options.get("bgcolor", crops.BACKGROUND),
        crop=options.get("crop", "1") == "1",
    )
    expected = case["expected"]
    return [
        *_differs("shape", [found.height, found.width], expected["shape_hw"]),
        *([] if found.tobytes() == base64.b64decode(expected["rgb_b64"]) else ["the pixels differ"]),
    ]


def check_geneval_color(case: dict, _: list[Prompt]) -> Mismatches:
    """One class: CLIP prompts in order and the colours answered for given features."""
    texts = [text for row in colors.color_texts(case["classname"]) for text in row]
    found = colors.classify_colors(case["text_features_color_template_dim"], case["image_features"])
    expected = case["expected"]
    return [
        *_differs("texts", texts, expected["texts_in_order_color_major"]),
        *_differs("colors", found, expected["colors"]),
    ]


def check_geneval_summary(case: dict, prompts: list[Prompt]) -> Mismatches:
    """Many images: the numbers that the official summary prints, at its printed precision."""
    rows = [(prompts[p].tag, str(p), bool(correct)) for p, _, correct in case["rows_prompt_image_correct"]]
    summary, expected = scorer.summarize(rows), case["expected"]
    tags = {
        tag: {"pct": round(float(f"{v['mean']:.2%}"[:-1]), 2), "correct": v["correct"], "total": v["total"]}
        for tag, v in summary["tags"].items()
    }
    return [
        *_differs("total_images", summary["images"], expected["total_images"]),
        *_differs("total_prompts", summary["prompts"], expected["total_prompts"]),
        *_differs("pct_correct_images", float(f"{summary['images_correct']:.2%}"[:-1]), expected["pct_correct_images"]),
        *_differs(
            "pct_correct_prompts", float(f"{summary['prompts_any_correct']:.2%}"[:-1]), expected["pct_correct_prompts"]
        ),
        *_differs("tags", list(tags.items()), list(expected["tags"].items())),
        *_differs("overall", float(f"{summary['overall']:.5f}"), expected["overall"]),
    ]


CHECKS: dict[str, Callable[[dict, list[Prompt]], Mismatches]] = {
    "geneval/cases.jsonl": check_geneval_case,
    "geneval/relations.jsonl": check_geneval_relation,
    "geneval/summary.jsonl": check_geneval_summary,
    "geneval/crops.jsonl": check_geneval_crop,
    "geneval/color_zero_shot.jsonl": check_geneval_color,
}
NEEDS_PROMPTS = {"geneval/summary.jsonl"}


def find_prompts(golden: Path) -> Path:
    """The official GenEval prompt file beside a golden folder."""
    return golden.parent / "mirror" / "geneval" / "evaluation_metadata.jsonl"


def verify(golden: Path, prompts: Path | None = None) -> tuple[list[FileReport], list[str]]:
    """Run every golden case of a folder.

    Args:
        golden: the folder.
        prompts: GenEval's evaluation_metadata.jsonl; by default `../mirror/geneval/` seen from the folder.

    Returns:
        A report per checked file, and the names of the files without a check.

    Raises:
        DataError: the folder holds no golden file, or a needed prompt file is missing.
    """
    names = sorted(str(path.relative_to(golden)) for path in golden.rglob("*.jsonl"))
    if not names:
        raise DataError(f"{golden}: no golden files (*/*.jsonl) in it; give the folder that holds geneval/ and others")
    reports = []
    for name in names:
        if name not in CHECKS:
            continue
        metadata = read_prompts(prompts or find_prompts(golden)) if name in NEEDS_PROMPTS else []
        report = FileReport(name)
        for number, case in enumerate(read_jsonl(golden / name), start=1):
            label = str(case.get("id", number))
            try:
                problems = CHECKS[name](case, metadata)
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise DataError(f"{golden / name}: {label} is malformed ({type(error).__name__} {error})") from error
            report.total += 1
            report.passed += not problems
            if problems:
                report.failures.append({"id": label, "problems": problems})
        reports.append(report)
    return reports, [name for name in names if name not in CHECKS]
