"""The reader of the embedded world, which several benchmarks have as their backend `oracle`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from promptecho.benchmarks.perception import ShapeReader
from promptecho.errors import ModelError

if TYPE_CHECKING:
    from PIL import Image

    from promptecho.shapes.oracle import DetectedShape


class OracleReader:
    """The oracle of the shapes world."""

    name = "oracle"

    def __call__(self, image: Image.Image) -> list[DetectedShape]:
        from promptecho.shapes.oracle import detect

        return detect(image)


READERS: dict[str, Callable[[], ShapeReader]] = {"oracle": OracleReader}
Factory = TypeVar("Factory")


def find_backend(backends: Mapping[str, Factory], name: str) -> Factory:
    """What makes the backend called `name`.

    Raises:
        ModelError: the name is unknown.
    """
    if name not in backends:
        raise ModelError(f"backend {name!r} is unknown; known backends: {', '.join(sorted(backends))}")
    return backends[name]


def load_reader(name: str) -> ShapeReader:
    """The reader of a backend name.

    Raises:
        ModelError: the name is unknown or the backend is not available.
    """
    return find_backend(READERS, name)()
