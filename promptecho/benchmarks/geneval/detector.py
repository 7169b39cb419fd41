"""GenEval's real perception: Mask2Former finds the objects, CLIP names their colours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from promptecho.benchmarks.geneval.classes import CLASSES
from promptecho.benchmarks.geneval.clip_colors import ClipColors
from promptecho.benchmarks.geneval.crops import BACKGROUND, object_crop
from promptecho.benchmarks.geneval.mask2former import (
    CANDIDATES,
    DIVISOR,
    LONGEST_EDGE,
    SHORTEST_EDGE,
    Instance,
    InstanceDetector,
)
from promptecho.benchmarks.geneval.prompts import COLORS
from promptecho.benchmarks.geneval.rules import Options
from promptecho.benchmarks.perception import Boxes, Colors, Detector
from promptecho.config.defaults import CLIP, MASK2FORMER
from promptecho.errors import DataError, ModelError

# Below the rules' thresholds, so that raw answers also show what was nearly found.
MIN_SCORE = 0.1


def split_model(model: str | None) -> tuple[str, str]:
    """Detector and CLIP that one name means: None is the defaults; a folder holds `mask2former/` and `clip/`;
    anything else is a detector's hub id, with the default CLIP.

    Raises:
        ModelError: the folder lacks one of the two.
    """
    if model is None:
        return MASK2FORMER, CLIP
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return model, CLIP
    for name, hub_id in (("mask2former", MASK2FORMER), ("clip", CLIP)):
        if not (folder / name).is_dir():
            raise ModelError(f"{folder}: no folder {name}/ in it; download {hub_id} to {folder / name}")
    return str(folder / "mask2former"), str(folder / "clip")


class Mask2FormerDetector:
    """`Detector` for COCO's 80 classes by GenEval's names and the ten colours.

    Objects with a score above `min_score` are returned, best first in each class. Colours are named for the classes
    whose colour the metadata asks for, and there for the leading objects, those above the rules' threshold. The list
    of colours is then shorter than that of boxes, and a lower threshold is refused, because it could only be judged by
    guesses.
    """

    def __init__(
        self, model: str | None = None, clip: str | None = None, device: str = "cpu", min_score: float = MIN_SCORE
    ):
        """`model` and `clip` are folders or hub ids.

        Raises:
            ModelError: a model is not available, is incomplete, or is not of the right kind.
        """
        import torch
        import transformers

        model, clip = model or MASK2FORMER, clip or CLIP
        self._color_min_score = Options().threshold
        if not 0 <= min_score <= self._color_min_score:
            raise ModelError(f"min_score {min_score}: must lie between 0 and the rules' {self._color_min_score}")
        self._min_score = min_score
        self._detector, self._colors = InstanceDetector(model, device), ClipColors(clip, device)
        # Folders by their last part: the same weights elsewhere are the same judge, which the revision tells.
        names = [name if not Path(name).is_dir() else Path(name).resolve().name for name in (model, clip)]
        self.name = (
            f"{names[0]}@{self._detector.revision} + {names[1]}@{self._colors.revision}"
            f" (transformers {transformers.__version__})"
        )
        self.settings: dict[str, Any] = {
            "shortest_edge": SHORTEST_EDGE,
            "longest_edge": LONGEST_EDGE,
            "pad_to_multiple_of": DIVISOR,
            "candidates": CANDIDATES,
            "min_score": min_score,
            "color_min_score": self._color_min_score,
            "crop_background": BACKGROUND,
            "clip_activation": self._colors.activation,
            "torch": torch.__version__,
            "device": device,
        }

    def __call__(self, image: Image.Image, metadata: dict) -> tuple[Boxes, Colors]:
        """Boxes and colours as `Detector` says.

        Raises:
            DataError: the metadata asks for a class or colour that the detector can't know.
            PerceptionFailure: a model's answer for this image is not finite.
        """
        colored = _colored_classes(metadata)
        found: dict[str, list[Instance]] = {}
        for instance in sorted(self._detector.detect(image, self._min_score), key=lambda each: -each.score):
            found.setdefault(CLASSES[instance.label], []).append(instance)
        boxes = {name: [[*each.box, each.score] for each in group] for name, group in found.items()}
        colors: Colors = {}
        for name, group in found.items():
            if name not in colored:
                continue
            crops = [
                object_crop(image, each.box, each.mask)
                for each in group
                if np.float32(each.score) > np.float32(self._color_min_score)  # as the rules compare
            ]
            colors[name] = self._colors(name, crops)
        return boxes, colors


def check_detector(
    detector: Detector, image: Image.Image, expected: Mapping[str, int], threshold: float = Options().counting_threshold
) -> list[str]:
    """Smoke test on an image whose content is known: one line for each class with too few confident detections.

    A model that is damaged, or computes wrongly on some GPU, often still answers, with low confidence. `expected`
    holds class -> objects that a sound detector finds with a score above `threshold`.
    """
    metadata = {"include": [{"class": name, "count": count} for name, count in expected.items()]}
    boxes, _ = detector(image, metadata)
    problems = []
    for name, count in expected.items():
        scores = sorted((box[4] for box in boxes.get(name, [])), reverse=True)
        if sum(score > threshold for score in scores) < count:
            best = ", ".join(f"{score:.3f}" for score in scores[:count]) or "none"
            problems.append(f"expected {count} {name} above {threshold}, best scores: {best}")
    return problems


def _colored_classes(metadata: dict) -> set[str]:
    """Classes whose colour is asked for.

    Raises:
        DataError: a class or colour is unknown: every image would be judged wrong.
    """
    include = metadata.get("include") or []
    asked = {clause["class"] for clause in [*include, *(metadata.get("exclude") or [])]}
    if foreign := sorted(asked - set(CLASSES)):
        raise DataError(
            f"backend mask2former: finds COCO's {len(CLASSES)} classes by GenEval's names, not {', '.join(foreign)};"
            " correct the prompt set or use another backend"
        )
    colored = [clause for clause in include if clause.get("color") is not None]
    if foreign := sorted({clause["color"] for clause in colored} - set(COLORS)):
        raise DataError(
            f"backend mask2former: knows the colours {', '.join(COLORS)}, not {', '.join(foreign)};"
            " correct the prompt set or use another backend"
        )
    return {clause["class"] for clause in colored}
