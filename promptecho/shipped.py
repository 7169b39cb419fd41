"""Where the models that ship with the project are, by the name of the embedded world that they know."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

SHIPPED = ("shapes", "gallery")
PACKAGE = Path(__file__).resolve().parent


def is_shipped(path: str) -> bool:
    """Whether a configuration's model path names a model that ships with the project."""
    return path in SHIPPED


def weights_of(world: str, package: Path = PACKAGE) -> Path:
    """The folder of a world's models."""
    return package / world / "weights"


def model_path(path: str, kind: Literal["vlm", "t2i"], package: Path = PACKAGE) -> str:
    """`path` as it is, or for a shipped name the folder of the embedded model of that kind."""
    return str(weights_of(path, package) / kind) if is_shipped(path) else path
