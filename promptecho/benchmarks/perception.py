"""What perception finds in an image, whoever looks: the protocols of backends (backends.py), and how one fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from promptecho.errors import PromptEchoError

if TYPE_CHECKING:
    from PIL import Image

    from promptecho.shapes.oracle import DetectedShape

Boxes = dict[str, list[list[float]]]
Colors = dict[str, list[str]]


class PerceptionFailure(PromptEchoError):
    """A backend has no answer for one image: the image counts as failed, never as wrong."""


class Detector(Protocol):
    """Finds objects in an image.

    `detector(image, metadata)` returns `(boxes, colors)`: class -> `[n][5]` boxes x1, y1, x2, y2, score in pixels,
    and class -> colour of each detection, aligned by index. `metadata` (the prompt's own object) lets a backend ask for
    colours only where they matter. Raises PerceptionFailure where an image has no answer.
    `name` says which models look, with their revisions; `settings` what else decides the answers, for the raw records.
    """

    name: str
    settings: dict[str, Any]

    def __call__(self, image: Image.Image, metadata: dict) -> tuple[Boxes, Colors]: ...


class ObjectReader(Protocol):
    """Reads all objects of an image of an embedded world, largest first, as that world describes objects. Raises
    PerceptionFailure where an image has no answer."""

    name: str

    def __call__(self, image: Image.Image) -> list[Any]: ...


class ShapeReader(Protocol):
    """Reads all objects of an image, largest first. Raises PerceptionFailure where an image has no answer."""

    name: str

    def __call__(self, image: Image.Image) -> list[DetectedShape]: ...
