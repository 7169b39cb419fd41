"""The oracle: reads a rendered or generated image back into objects, without any learned model.

Every pixel is unmixed into background and the nearest palette colour; connected pixels of one colour form an
object; the object's alpha mask, stretched to its bounding box, is compared with the six shape templates by soft
intersection over union (IoU). A fill-ratio rule would confuse soft squares with discs; masks don't.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from promptecho.shapes.grammar import Claim
from promptecho.shapes.render import template
from promptecho.shapes.world import COLORS, SHAPES

GRID = 24
TURNS = (-10.0, -5.0, 0.0, 5.0, 10.0)  # objects are drawn turned by up to 8 degrees
# IoU with the template that the smallest clean renders of a shape reach (5th percentile of 150); thin arms lose most.
CLEAN_IOU = {"circle": 0.90, "cross": 0.85, "ring": 0.80, "square": 0.89, "star": 0.69, "triangle": 0.81}
SHORTFALL = (0.04, 0.08, 0.2)  # below CLEAN_IOU: a score of 1, of 0.9 (the least that detectors count), of 0
# Least score of an object, at 0.06 below CLEAN_IOU; one below it is broken, so its image is wrong. Chosen on objects
# labelled by eye (docs/shapes.md).
WELL_FORMED = 0.95
MIN_AREA = 30  # pixels; the smallest object drawn covers about 60
_PALETTE = np.array(list(COLORS.values()), np.float32)
_NAMES = tuple(COLORS)


@dataclass(frozen=True)
class DetectedShape:
    """One object found. `box` is (x1, y1, x2, y2) in pixels; `score` in 0-1 says how well-formed its shape is: 1 for
    clean renders, 0.9 at an IoU of 0.08 below what the smallest clean renders reach, 0.3 at 0.16 below."""

    shape: str
    color: str
    box: tuple[float, float, float, float]
    score: float


@functools.cache
def _templates() -> tuple[list[str], np.ndarray]:
    """Names [K] and masks [K, GRID, GRID] of all shapes at five small rotations."""
    keys = [(shape, turn) for shape in SHAPES for turn in (TURNS if shape not in ("circle", "ring") else (0.0,))]
    return [shape for shape, _ in keys], np.stack([template(shape, GRID, turn) for shape, turn in keys])


def score_of(shape: str, iou: float, stretch: float) -> float:
    """How well-formed an object is, from its IoU with the template of `shape` and the ratio of its box's sides."""
    score = float(np.interp(CLEAN_IOU[shape] - iou, SHORTFALL, (1.0, 0.9, 0.0)))
    return score * (1.0 if stretch < 1.5 else 0.5)


def detect(image: Image.Image) -> list[DetectedShape]:
    """All objects of an image, largest first."""
    pixels = np.asarray(image.convert("RGB"), np.float32)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    background = np.median(border, axis=0)
    direction = _PALETTE - background  # [C, 3]
    offset = pixels - background  # [H, W, 3]
    alpha = np.clip(offset @ direction.T / (direction**2).sum(1), 0, 1)  # [H, W, C]: how much of each colour
    residual = np.linalg.norm(offset[:, :, None] - alpha[..., None] * direction, axis=-1)
    nearest = residual.argmin(-1)
    weight = np.take_along_axis(alpha, nearest[..., None], -1)[..., 0]
    solid = (weight > 0.6) & (np.take_along_axis(residual, nearest[..., None], -1)[..., 0] < 60)
    found = []
    for index, color in enumerate(_NAMES):
        labels, n = ndimage.label(solid & (nearest == index), structure=np.ones((3, 3)))
        for label, window in enumerate(ndimage.find_objects(labels), start=1):
            core = labels[window] == label
            area = int(core.sum())
            if area < MIN_AREA:
                continue
            found.append((area, _read_object(color, alpha[..., index], labels, label)))
    return [detection for _, detection in sorted(found, key=lambda pair: -pair[0])]


def _read_object(color: str, alpha: np.ndarray, labels: np.ndarray, label: int) -> DetectedShape:
    mask = ndimage.binary_dilation(labels == label, iterations=1) & ((labels == label) | (labels == 0))
    soft = np.where(mask, np.clip(alpha / 0.95, 0, 1), 0).astype(np.float32)
    rows, columns = np.where(soft.max(1) > 0.5)[0], np.where(soft.max(0) > 0.5)[0]
    y1, y2 = rows[0], rows[-1] + 1
    x1, x2 = columns[0], columns[-1] + 1
    resized = Image.fromarray(soft).resize((GRID, GRID), Image.Resampling.BILINEAR, box=(x1, y1, x2, y2))
    patch = np.asarray(resized)
    names, ideals = _templates()
    ious = np.minimum(patch, ideals).sum((1, 2)) / np.maximum(patch, ideals).sum((1, 2))
    best = int((ious / np.array([CLEAN_IOU[name] for name in names])).argmax())
    shape, iou = names[best], float(ious[best])
    stretch = max((x2 - x1) / (y2 - y1), (y2 - y1) / (x2 - x1))
    return DetectedShape(shape, color, (float(x1), float(y1), float(x2), float(y2)), score_of(shape, iou, stretch))


def judge(claim: Claim, detections: list[DetectedShape], min_score: float = WELL_FORMED) -> bool:
    """Whether an image shows exactly what a claim says: these objects, no others, in this relation.

    Stricter than rules of benchmarks that ignore additional objects in most of their tasks.
    """
    found = [d for d in detections if d.score >= min_score]
    if len(found) != len(detections) or len(found) != sum(group.count for group in claim.groups):
        return False
    left = list(found)
    chosen: list[DetectedShape] = []
    for group in claim.groups:
        matches = [d for d in left if d.shape == group.shape and group.color in (None, d.color)]
        if len(matches) != group.count:
            return False
        if group.color is None and len({d.color for d in matches}) > 1 and group.count == 1:
            return False
        left = [d for d in left if d not in matches]
        chosen += matches
    return claim.relation is None or claim.relation in directions(chosen[0], chosen[1])


def directions(a: DetectedShape, b: DetectedShape) -> set[str]:
    """Directions of `a` as seen from `b` by more than 30 degrees off the other axis."""
    offset = np.array([(a.box[i] + a.box[i + 2] - b.box[i] - b.box[i + 2]) / 2 for i in (0, 1)])
    dx, dy = offset / max(float(np.linalg.norm(offset)), 1e-9)
    names = set()
    if dx < -0.5:
        names.add("left")
    if dx > 0.5:
        names.add("right")
    if dy < -0.5:
        names.add("above")
    if dy > 0.5:
        names.add("below")
    return names
