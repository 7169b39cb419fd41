"""Videos of moving shapes as frames."""

from __future__ import annotations

import numpy as np
from PIL import Image

from promptecho.moving.world import FRAME_SIZE, Mover, place
from promptecho.shapes.render import render
from promptecho.shapes.world import IMAGE_SIZE, Scene


def render_frames(scenes: list[Scene], rng: np.random.Generator | None = None) -> list[Image.Image]:
    """Frames of 32 x 32 pixels; `rng` varies each object's colour, for the whole video, by a few grey levels."""
    seed = None if rng is None else int(rng.integers(2**31))
    frames = [render(scene, None if seed is None else np.random.default_rng(seed)) for scene in scenes]
    return [frame.reduce(IMAGE_SIZE // FRAME_SIZE) for frame in frames]


def draw_frames(movers: tuple[Mover, ...], rng: np.random.Generator) -> list[Image.Image]:
    """Frames of a video in which `movers` do what they do."""
    return render_frames(place(movers, rng), rng)
