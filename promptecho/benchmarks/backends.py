"""Perception backends by name: what turns an image into the detections that a benchmark's rules judge."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from promptecho.benchmarks.perception import Boxes, Colors, Detector, Reader
from promptecho.benchmarks.scoring import ScoringOptions
from promptecho.errors import DataError, ModelError

if TYPE_CHECKING:
    from PIL import Image

    from promptecho.shapes.oracle import Detection


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


class OracleReader:
    """The oracle of the shapes world."""

    name = "oracle"

    def __call__(self, image: Image.Image) -> list[Detection]:
        from promptecho.shapes.oracle import detect

        return detect(image)


def _mask2former(options: ScoringOptions) -> Detector:
    from promptecho.benchmarks.geneval.detector import Mask2FormerDetector, split_model
    from promptecho.cluster.device import choose_device

    return Mask2FormerDetector(*split_model(options.model), device=choose_device(options.device))


BACKENDS: dict[str, Callable[[ScoringOptions], Detector]] = {
    "oracle": lambda options: OracleDetector(),
    "mask2former": _mask2former,
}
READERS: dict[str, Callable[[], Reader]] = {"oracle": OracleReader}
Factory = TypeVar("Factory")


def _find(backends: dict[str, Factory], name: str) -> Factory:
    if name not in backends:
        raise ModelError(f"backend {name!r} is unknown; known backends: {', '.join(sorted(backends))}")
    return backends[name]


def load_backend(name: str, options: ScoringOptions | None = None) -> Detector:
    """The detector of a backend name; of `options` only `model` and `device` count.

    Raises:
        ModelError: the name is unknown, or the backend's models can't be had.
    """
    return _find(BACKENDS, name)(options or ScoringOptions(backend=name))


def load_reader(name: str) -> Reader:
    """The reader of a backend name.

    Raises:
        ModelError: the name is unknown or the backend is not available.
    """
    return _find(READERS, name)()
