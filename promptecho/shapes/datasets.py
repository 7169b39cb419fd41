"""What the shapes experiment takes the place of a data set with: rendered images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from promptecho.files import atomic_path
from promptecho.seeds import derive_seed
from promptecho.shapes.grammar import random_claim, scene_of
from promptecho.shapes.render import render


def render_images(count: int, seed: int, out: Path) -> None:
    """Write `count` PNG images of the prompt world, `00000.png` on; the folder appears when it is complete."""
    with atomic_path(out) as temporary:
        temporary.mkdir()
        for index in range(count):
            rng = np.random.default_rng(derive_seed(seed, "image", index))
            render(scene_of(random_claim(rng), rng), rng).save(temporary / f"{index:05}.png")
