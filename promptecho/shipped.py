"""Where the models that ship with the project are."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

SHAPES = "shapes"
ROOT = Path(__file__).resolve().parent / SHAPES / "weights"


def model_path(path: str, kind: Literal["vlm", "t2i"]) -> str:
    """`path` as it is, or for `shapes` the folder of the embedded model of that kind."""
    return str(ROOT / kind) if path == SHAPES else path
