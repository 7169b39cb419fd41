"""What finds objects in GenEval's images, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from promptecho.benchmarks.backends import find_backend
from promptecho.benchmarks.perception import Boxes, Colors, Detector
from promptecho.benchmarks.scoring import ScoringOptions
from promptecho.errors import DataError

if TYPE_CHECKING:
    from PIL import Image


class OracleDetector:
    """The oracle of the shapes world: class = shape name, colours read from the pixels.

    It would find no object of another world and call every image wrong, so foreign classes are an error.
    """

    name = "oracle"

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}

    def __call__(self, image: Image.Image, metadata: dict) -> tuple[Boxes, Colors]:
        from promptecho.shapes.oracle import detect
        from promptecho.shapes.world import SHAPES

        asked = [clause["class"] for key in ("include", "exclude") for clause in metadata.get(key) or []]
        if foreign := sorted({name for name in asked if name not in SHAPES}):
            raise DataError(f"backend oracle: knows {', '.join(SHAPES)}, not {', '.join(foreign)}; use a real detector")
        boxes: Boxes = {}
        colors: Colors = {}
        for found in detect(image):
            boxes.setdefault(found.shape, []).append([*map(float, found.box), float(found.score)])
            colors.setdefault(found.shape, []).append(found.color)
        return boxes, colors


def _mask2former(options: ScoringOptions) -> Detector:
    from promptecho.benchmarks.geneval.detector import Mask2FormerDetector, split_model
    from promptecho.cluster.device import choose_device

    return Mask2FormerDetector(*split_model(options.model), device=choose_device(options.device))


BACKENDS: dict[str, Callable[[ScoringOptions], Detector]] = {
    "oracle": lambda options: OracleDetector(),
    "mask2former": _mask2former,
}


def load_backend(name: str, options: ScoringOptions | None = None) -> Detector:
    """The detector of a backend name; of `options` only `model` and `device` count.

    Raises:
        ModelError: the name is unknown, or the backend's models are not available.
    """
    return find_backend(BACKENDS, name)(options or ScoringOptions(backend=name))
