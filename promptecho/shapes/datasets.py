"""What the shapes experiment takes the place of a data set with: rendered images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from promptecho.files import atomic_path
from promptecho.seeds import derive_seed
from promptecho.shapes.grammar import random_claim, scene_of
from promptecho.shapes.render import render


def prompt_scene(rng: np.random.Generator) -> Image.Image:
    """A scene as prompts ask for one."""
    return render(scene_of(random_claim(rng), rng), rng)


def render_images(
    count: int, seed: int, out: Path, draw: Callable[[np.random.Generator], Image.Image] = prompt_scene
) -> None:
    """Write `count` PNG images, `00000.png` on, by default of the prompt world; the folder appears when it is
    complete."""
    with atomic_path(out) as temporary:
        temporary.mkdir()
        for index in range(count):
            rng = np.random.default_rng(derive_seed(seed, "image", index))
            draw(rng).save(temporary / f"{index:05}.png")
