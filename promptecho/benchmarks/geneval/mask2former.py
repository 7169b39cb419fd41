"""GenEval's object detector: instance segmentation with transformers' Mask2Former, post-processed as officially.

The library's own post-processing is not used: it resizes mask logits to 384 x 384 whatever the input was, gives no
boxes, and keeps one class per query. The official evaluator's (mmdet 2.x) is:

1. the image is resized to shortest edge 800, longest at most 1333, and padded with zeros on the right and at the
   bottom to multiples of 32; not stretched, as the library's image processor does. 1024 x 1024 becomes 800 x 800;
2. softmax over the classes and the null class, then the null class is left out; of all (query, class) pairs the
   100 most probable are candidates, so that one query can be two objects;
3. mask logits are resized (bilinear) to the padded input, cut to the unpadded, resized to the image's own size;
4. mask = logits > 0; score = class probability x mean mask probability inside the mask; box = tight around the mask,
   right and bottom edge exclusive.

Deviations: images are resized with Pillow's bilinear filter (which averages when it shrinks, as in the training of
the checkpoint used here) instead of OpenCV's; candidates that cannot reach `min_score` are dropped before step 3,
which changes no result; equal probabilities keep the order of queries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from promptecho.benchmarks.geneval.classes import check_labels
from promptecho.benchmarks.geneval.weights import exact_float32, load_frozen
from promptecho.benchmarks.perception import PerceptionFailure
from promptecho.config.memory import score_keys
from promptecho.memory import MemoryAdvice
from promptecho.models.locate import stage_model
from promptecho.vlm.model import model_revision
from promptecho.vlm.processor import check_model_path

SHORTEST_EDGE, LONGEST_EDGE, DIVISOR = 800, 1333, 32
CANDIDATES = 100
# ImageNet's channel means and deviations, as of all Mask2Former checkpoints on COCO.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

ImageSize = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Instance:
    """One detected object: `label` 0..79, `score` float32, `box` x1, y1, x2, y2 in pixels, `mask` bool `[H, W]`."""

    label: int
    score: float
    box: tuple[float, float, float, float]
    mask: np.ndarray


@dataclass(frozen=True)
class Frame:
    """Sizes of one image on its way through the detector: as it is, resized, and padded."""

    original: ImageSize
    resized: ImageSize
    padded: ImageSize


def frame_of(height: int, width: int) -> Frame:
    """Sizes for an image: aspect ratio kept, edges rounded to the nearest pixel and at least 1."""
    scale = min(LONGEST_EDGE / max(height, width), SHORTEST_EDGE / min(height, width))
    h, w = (max(1, int(edge * scale + 0.5)) for edge in (height, width))
    padded_h, padded_w = (math.ceil(edge / DIVISOR) * DIVISOR for edge in (h, w))
    return Frame((height, width), (h, w), (padded_h, padded_w))


def pixel_values(image: Image.Image, frame: Frame) -> torch.Tensor:
    """Input `[1, 3, H, W]` float32 of the detector: resized, normalised, zeros as padding."""
    height, width = frame.resized
    resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    normal = (np.asarray(resized, np.float32) / 255 - np.asarray(MEAN, np.float32)) / np.asarray(STD, np.float32)
    values = torch.zeros(1, 3, *frame.padded)
    values[0, :, :height, :width] = torch.from_numpy(normal).permute(2, 0, 1)
    return values


def resize_mask(logits: torch.Tensor, frame: Frame) -> torch.Tensor:
    """Mask logits `[h, w]` of the model at the image's own size `[H, W]` (step 3)."""
    height, width = frame.resized
    grown = F.interpolate(logits[None, None].float(), size=frame.padded, mode="bilinear", align_corners=False)
    cut = grown[..., :height, :width]
    return F.interpolate(cut, size=frame.original, mode="bilinear", align_corners=False)[0, 0]


def tight_box(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Box around a mask that is not empty; right and bottom edge exclusive."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def instances(
    class_logits: torch.Tensor, mask_logits: torch.Tensor, frame: Frame, min_score: float = 0.0
) -> list[Instance]:
    """Objects in one image (steps 2 to 4), most probable class first.

    Args:
        class_logits: `[queries, classes + 1]`, the null class last.
        mask_logits: `[queries, h, w]` for the padded input.
        frame: the image's sizes.
        min_score: only objects with a score strictly above it are returned; an empty mask is never an object.
    """
    probabilities = class_logits.float().softmax(dim=-1)[:, :-1]
    classes = probabilities.shape[1]
    best, pairs = probabilities.flatten().sort(descending=True, stable=True)
    found: list[Instance] = []
    masks: dict[int, tuple[np.ndarray, np.float32]] = {}
    for probability, pair in zip(best[:CANDIDATES].tolist(), pairs[:CANDIDATES].tolist(), strict=True):
        if not probability > min_score:  # the mean mask probability is at most 1
            break
        query, label = divmod(pair, classes)
        if query not in masks:
            logits = resize_mask(mask_logits[query], frame)
            inside = logits > 0
            # Summed in float64, so that the device's order of summation doesn't show in the score.
            total = (logits.sigmoid() * inside).sum(dtype=torch.float64)
            mean = total / (inside.sum(dtype=torch.float64) + 1e-6)
            masks[query] = inside.cpu().numpy(), np.float32(mean.item())
        mask, mean_probability = masks[query]
        score = np.float32(probability) * mean_probability
        if score > np.float32(min_score) and mask.any():
            found.append(Instance(label, float(score), tight_box(mask), mask))
    return found


class InstanceDetector:
    """A frozen Mask2Former that finds COCO's objects; `path` is a folder or a hub id."""

    def __init__(self, path: str, device: str = "cpu"):
        """Raises ModelError: the model is not available, is incomplete, or its labels are not COCO's."""
        from transformers import Mask2FormerForUniversalSegmentation

        checked = stage_model(check_model_path(path, "Mask2Former"))
        self._model = load_frozen(Mask2FormerForUniversalSegmentation, checked, "detector", device)
        self.revision = model_revision(path)
        check_labels(path, self._model.config.num_labels, self._model.config.id2label)
        self._device = device

    @torch.inference_mode()
    def detect(self, image: Image.Image, min_score: float) -> list[Instance]:
        """All objects with a score above `min_score`.

        Raises:
            PerceptionFailure: the model's answer is not finite.
            OutOfMemoryError: the device has too little memory.
        """
        frame = frame_of(image.height, image.width)
        what = f"detect at {frame.padded[1]} x {frame.padded[0]} pixels"
        with MemoryAdvice(self._device, partial(score_keys, None, None))(what):
            with exact_float32():
                output = self._model(pixel_values=pixel_values(image, frame).to(self._device))
            logits = output.class_queries_logits[0], output.masks_queries_logits[0]
            if not all(bool(part.isfinite().all()) for part in logits):
                raise PerceptionFailure("the detector's answer is not finite")
            return instances(*logits, frame, min_score)
