"""Golden cases of GenEval: what the official evaluator and its summary said."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np

from promptecho.benchmarks.geneval import colors, crops, rules
from promptecho.benchmarks.geneval.prompts import read_prompts
from promptecho.benchmarks.golden_case import Check, differs

# Prompts of each tag in the official evaluation_metadata.jsonl, in its order.
OFFICIAL_COUNTS = {
    "single_object": 80, "two_object": 99, "counting": 80, "colors": 94, "position": 100, "color_attr": 100,
}  # fmt: skip


def read_tags(path: Path | None) -> list[str]:
    """The tag of every prompt of a file, or of every official prompt where there is no file.

    Raises:
        DataError: the file is missing or faulty.
    """
    if path is None:
        return [tag for tag, count in OFFICIAL_COUNTS.items() for _ in range(count)]
    return [prompt.tag for prompt in read_prompts(path)]


def _boxes(detections: list[rules.Detection]) -> list[list[np.float32]]:
    return [list(detection.box) for detection in detections]


def _float32(boxes: list[list[float]]) -> list[list[np.float32]]:
    return [list(np.asarray(box, np.float32)) for box in boxes]


def check_geneval_case(case: dict) -> list[str]:
    """One image: verdict, verbatim reason, kept boxes, boxes sent to the colour classifier. `colors` may be left out
    where no clause asks for a colour, `options` where they are the official ones."""
    options = rules.Options(**case.get("options", {}))
    verdict = rules.evaluate_image(case["metadata"], case["detections"], case.get("colors", {}), options)
    expected = case["expected"]
    return [
        *differs("correct", verdict.correct, expected["correct"]),
        *differs("reason", verdict.reason, expected["reason"]),
        *differs(
            "kept",
            {name: _boxes(found) for name, found in verdict.kept.items()},
            {name: _float32(boxes) for name, boxes in expected["kept"].items()},
        ),
        *differs(
            "color_queries",
            [(name, _boxes(found)) for name, found in verdict.color_queries],
            [(name, _float32(boxes)) for name, boxes in expected["color_queries"]],
        ),
    ]


def check_geneval_relation(case: dict) -> list[str]:
    """Two boxes: relations and IoU."""
    return [
        *differs("relations", sorted(rules.relations(case["a"], case["b"])), sorted(case["relations_of_a_to_b"])),
        *differs("iou", np.float32(rules.iou(case["a"], case["b"])), np.float32(case["iou"])),
    ]


def check_geneval_crop(case: dict) -> list[str]:
    """One object: the exact pixels that the colour classifier's transform gets."""
    from PIL import Image

    height, width, options = case["height"], case["width"], case.get("options", {})
    image = Image.frombytes("RGB", (width, height), base64.b64decode(case["image_rgb_b64"]))
    mask = None
    if case.get("mask_b64") is not None:
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
        *differs("shape", [found.height, found.width], expected["shape_hw"]),
        *([] if found.tobytes() == base64.b64decode(expected["rgb_b64"]) else ["the pixels differ"]),
    ]


def check_geneval_color(case: dict) -> list[str]:
    """One class: CLIP prompts in order and the colours answered for given features."""
    texts = [text for row in colors.color_texts(case["classname"]) for text in row]
    found = colors.classify_colors(case["text_features_color_template_dim"], case["image_features"])
    expected = case["expected"]
    return [
        *differs("texts", texts, expected["texts_in_order_color_major"]),
        *differs("colors", found, expected["colors"]),
    ]


def check_geneval_summary(case: dict, tags: list[str]) -> list[str]:
    """Many images: the numbers that the official summary prints, at its printed precision. `tags`: of every prompt."""
    rows = [(tags[p], str(p), bool(correct)) for p, _, correct in case["rows_prompt_image_correct"]]
    summary, expected = rules.summarize(rows), case["expected"]
    by_tag = {
        tag: {"pct": round(float(f"{v['mean']:.2%}"[:-1]), 2), "correct": v["correct"], "total": v["total"]}
        for tag, v in summary["tags"].items()
    }
    return [
        *differs("total_images", summary["images"], expected["total_images"]),
        *differs("total_prompts", summary["prompts"], expected["total_prompts"]),
        *differs("pct_correct_images", float(f"{summary['images_correct']:.2%}"[:-1]), expected["pct_correct_images"]),
        *differs(
            "pct_correct_prompts", float(f"{summary['prompts_any_correct']:.2%}"[:-1]), expected["pct_correct_prompts"]
        ),
        *differs("tags", list(by_tag.items()), list(expected["tags"].items())),
        *differs("overall", float(f"{summary['overall']:.5f}"), expected["overall"]),
    ]


def _tags(golden: Path, file: Path, prompts: Path | None) -> list[str]:
    mirrored = golden.resolve().parent / "mirror" / "geneval" / "evaluation_metadata.jsonl"
    return read_tags(prompts or (mirrored if mirrored.is_file() else None))


CHECKS = {
    "geneval/cases.jsonl": Check(frozenset({"metadata", "detections"}), check_geneval_case),
    "geneval/relations.jsonl": Check(frozenset({"relations_of_a_to_b"}), check_geneval_relation),
    "geneval/summary.jsonl": Check(frozenset({"rows_prompt_image_correct"}), check_geneval_summary, _tags),
    "geneval/crops.jsonl": Check(frozenset({"image_rgb_b64"}), check_geneval_crop),
    "geneval/color_zero_shot.jsonl": Check(frozenset({"text_features_color_template_dim"}), check_geneval_color),
}
