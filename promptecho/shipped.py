"""Where the models that ship with the project are."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

SHAPES = "shapes"


def model_path(path: str, kind: Literal["vlm", "t2i"]) -> str:
    """`path` as it is, or for `shapes` the folder of the embedded model of that kind."""
    return str(Path(__file__).resolve().parent / SHAPES / "weights" / kind) if path == SHAPES else path
