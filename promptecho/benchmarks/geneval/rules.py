"""GenEval's official verdict, as pure functions of detections (github.com/djghosh13/geneval, af4902f).

Every rule and quirk of `evaluate_images.py` and `summary_scores.py` is kept. Boxes, scores and thresholds are
float32, as the official detector returns them: `float32(0.3) > 0.3` is true in float64 and officially false.

Deviations, none of which changes a verdict:
- "X and Y" relation sets in reasons are sorted (officially their order follows PYTHONHASHSEED);
- equal scores are ordered by a stable sort, reversed (officially numpy's default sort, reversed: the same for up to
  three boxes of a class; for more, its order of equal scores depends on numpy's version and the processor);
- colours outside GenEval's ten follow these in reasons, sorted, so that other worlds can name their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from promptecho.benchmarks.geneval.prompts import COLORS
from promptecho.errors import DataError


@dataclass(frozen=True)
class Options:
    """The official command line's options with their defaults."""

    threshold: float = 0.3
    counting_threshold: float = 0.9
    max_objects: int = 16
    max_overlap: float = 1.0
    position_threshold: float = 0.1


@dataclass(frozen=True)
class Detection:
    """One kept box: `box[5]` float32 = x1, y1, x2, y2, score; `index` into the detector's list of its class."""

    box: np.ndarray
    index: int


@dataclass
class GenevalVerdict:
    """The answer for one image; `reason` holds one line per unmet condition and is empty when correct."""

    correct: bool
    reason: str
    kept: dict[str, list[Detection]]
    color_queries: list[tuple[str, list[Detection]]] = field(default_factory=list)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes `[>=4]`, sides counted in pixels (x2 - x1 + 1), float32."""

    def area(x1: Any, y1: Any, x2: Any, y2: Any) -> Any:
        return max(x2 - x1 + 1, 0) * max(y2 - y1 + 1, 0)

    a, b = np.asarray(a, np.float32)[:4], np.asarray(b, np.float32)[:4]
    intersection = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    union = area(*a) + area(*b) - intersection
    return intersection / union if union else 0.0


def relations(a: np.ndarray, b: np.ndarray, position_threshold: float = 0.1) -> set[str]:
    """Where box `a` lies relative to box `b`: any of "left of", "right of", "above", "below".

    The offset of the centres, less `position_threshold` times the summed sizes, is divided by the norm of the
    ORIGINAL offset; a relation holds where a component passes 0.5.
    """
    boxes = np.stack([np.asarray(box, np.float32)[:4] for box in (a, b)]).reshape(2, 2, 2)
    center_a, center_b = boxes.mean(axis=-2)
    size_a, size_b = np.abs(np.diff(boxes, axis=-2))[..., 0, :]
    offset = center_a - center_b
    margin = np.float32(position_threshold) * (size_a + size_b)
    revised = np.maximum(np.abs(offset) - margin, 0) * np.sign(offset)
    if np.all(np.abs(revised) < 1e-3):
        return set()
    dx, dy = revised / np.linalg.norm(offset)
    tests = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return {name for name, holds in tests.items() if holds}


def keep_boxes(boxes: Sequence[Sequence[float]], threshold: float, options: Options) -> list[Detection]:
    """Boxes `[n][5]` of one class with score strictly above `threshold`, best first, capped, then thinned by NMS.

    `max_overlap` 1.0 (the default) means no NMS, even for identical boxes.
    """
    array = np.asarray(boxes, dtype=np.float32).reshape(-1, 5)
    best_first = np.argsort(array[:, 4], kind="stable")[::-1]
    order = best_first[array[best_first, 4] > np.float32(threshold)][: options.max_objects].tolist()
    kept = []
    while order:
        best = order.pop(0)
        kept.append(Detection(array[best], best))
        if options.max_overlap != 1:
            order = [i for i in order if iou(array[best], array[i]) < np.float32(options.max_overlap)]
    return kept


def _colors_of(found: list[Detection], class_name: str, colors: Mapping[str, Sequence[str]]) -> list[str]:
    answers = colors.get(class_name, ())
    try:
        return [answers[detection.index] for detection in found]
    except IndexError:
        raise DataError(
            f"colours of {class_name!r}: {len(answers)} answers, detection {max(d.index for d in found)} needs one; the"
            " perception backend must name a colour for each detection"
        ) from None


def evaluate_image(
    metadata: Mapping[str, Any],
    detections: Mapping[str, Sequence[Sequence[float]]],
    colors: Mapping[str, Sequence[str]],
    options: Options | None = None,
) -> GenevalVerdict:
    """Judge one image.

    Args:
        metadata: one GenEval metadata object (validated, see prompts.py).
        detections: class -> unsorted `[n][5]` boxes x1, y1, x2, y2, score in pixels, as the detector gave them.
        colors: class -> colour of each detection, aligned by index; read only where a clause asks for a colour.
        options: thresholds; the official ones by default.

    Raises:
        DataError: a colour is asked for and `colors` has none for the box.
    """
    options = options or Options()
    threshold = options.counting_threshold if metadata["tag"] == "counting" else options.threshold
    kept = {name: keep_boxes(boxes, threshold, options) for name, boxes in detections.items()}
    kept = {name: found for name, found in kept.items() if found}
    verdict = GenevalVerdict(correct=True, reason="", kept=kept)
    reasons: list[str] = []
    matched: list[list[Detection] | None] = []  # per include clause; None where the clause failed
    for clause in metadata.get("include", ()):
        found = kept.get(clause["class"], [])[: clause["count"]]
        problem = _check_include(clause, found, matched, colors, options, verdict)
        reasons += problem
        matched.append(None if problem else found)
    for clause in metadata.get("exclude") or ():
        count = len(kept.get(clause["class"], ()))  # all kept boxes, not the top `count`
        if count >= clause["count"]:
            reasons.append(f"expected {clause['class']}<{clause['count']}, found {count}")
    verdict.correct, verdict.reason = not reasons, "\n".join(reasons)
    return verdict


def _check_include(
    clause: Mapping[str, Any],
    found: list[Detection],
    matched: list[list[Detection] | None],
    colors: Mapping[str, Sequence[str]],
    options: Options,
    verdict: GenevalVerdict,
) -> list[str]:
    """Reasons why one include clause fails: count, then colour, then (only if these hold) position."""
    name, count = clause["class"], clause["count"]
    if len(found) < count:
        return [f"expected {name}>={count}, found {len(found)}"]
    color = clause.get("color")
    if color is not None:
        verdict.color_queries.append((name, found))
        seen = _colors_of(found, name, colors)
        if seen.count(color) < count:
            palette = [*COLORS, *sorted(set(seen) - set(COLORS))]
            others = ", ".join(f"{seen.count(c)} {c}" for c in palette if c in seen)
            return [f"expected {color} {name}>={count}, found {seen.count(color)} {color}; and {others}"]
    if clause.get("position") is not None:
        relation, target_index = clause["position"]
        targets = matched[target_index]
        if targets is None:
            return [f"no target for {name} to be {relation}"]
        for detection in found:
            for target in targets:
                true = relations(detection.box, target.box, options.position_threshold)
                if relation not in true:
                    return [f"expected {name} {relation} target, found {' and '.join(sorted(true))} target"]
    return []


def summarize(rows: Sequence[tuple[str, str, bool]]) -> dict[str, Any]:
    """Official summary of `(tag, prompt_id, correct)` rows, as fractions.

    `overall` is the mean of the tag means (not of the images); `prompts_any_correct` counts a prompt as right when
    any of its images is.

    Returns:
        {images, prompts, images_correct, prompts_any_correct, tags: {tag: {mean, correct, total}}, overall}, tags in
        order of first appearance.

    Raises:
        DataError: there are no rows.
    """
    if not rows:
        raise DataError("GenEval summary: no images were judged")
    tags: dict[str, list[bool]] = {}
    prompts: dict[str, bool] = {}
    for tag, prompt_id, correct in rows:
        tags.setdefault(tag, []).append(bool(correct))
        prompts[prompt_id] = prompts.get(prompt_id, False) or bool(correct)
    means = {tag: sum(values) / len(values) for tag, values in tags.items()}
    return {
        "images": len(rows),
        "prompts": len(prompts),
        "images_correct": sum(bool(row[2]) for row in rows) / len(rows),
        "prompts_any_correct": sum(prompts.values()) / len(prompts),
        "tags": {tag: {"mean": means[tag], "correct": sum(v), "total": len(v)} for tag, v in tags.items()},
        "overall": sum(means.values()) / len(means),
    }
