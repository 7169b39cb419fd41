"""Where the models that ship with the project are, by name.

An embedded world's name stands for its text-to-image model and its VLM; the other names for further VLMs of a world,
and for CLIPs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

WORLDS = ("shapes", "gallery")
VLMS = {
    "shapes-third": ("shapes", "vlm-third"),  # a third of the parameters of the world's VLM
    "shapes-tenth": ("shapes", "vlm-tenth"),
    "shapes-scores": ("shapes", "vlm-scores"),  # writes scores as well, for InferScore
    "moving-vlm": ("moving", "vlm"),  # reads videos of moving shapes
    "gallery-directions": ("gallery", "vlm-directions"),  # the world's VLM, taught on where directions count more
}
"""Name: world and folder, of VLMs that ship without a text-to-image model."""
CLIPS = {"shapes-clip": ("shapes", "clip")}
"""Likewise, of CLIPs."""
SHIPPED = (*WORLDS, *VLMS, *CLIPS)
WEIGHTS = tuple(sorted({*WORLDS, *(world for world, _ in (VLMS | CLIPS).values())}))
"""The worlds that models ship of."""
PACKAGE = Path(__file__).resolve().parent


def is_shipped(path: str) -> bool:
    """Whether a configuration's model path names a model that ships with the project."""
    return path in SHIPPED


def weights_of(world: str, package: Path = PACKAGE) -> Path:
    """The folder of a world's models."""
    return package / world / "weights"


def model_path(path: str, kind: Literal["vlm", "t2i", "clip"], package: Path = PACKAGE) -> str:
    """`path` as it is, or for a shipped name the folder of the embedded model of that kind.

    A name of `VLMS` or `CLIPS` leads to its folder whatever `kind` is; configurations refuse it for a pipeline. No CLIP
    has a world's name.
    """
    if (single := (VLMS | CLIPS).get(path)) is not None:
        world, folder = single
        return str(weights_of(world, package) / folder)
    return str(weights_of(path, package) / kind) if path in WORLDS and kind != "clip" else path
