"""Scenes to pixels: antialiased drawing, and the damage that generated images show."""

from __future__ import annotations

import functools
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from promptecho.shapes.world import COLORS, IMAGE_SIZE, Scene, Thing

SUPERSAMPLING = 4


def _star() -> list[tuple[float, float]]:
    radii = (1.0, 0.42)
    return [(radii[i % 2] * math.sin(i * math.pi / 5), -radii[i % 2] * math.cos(i * math.pi / 5)) for i in range(10)]


def _polygon(shape: str) -> list[tuple[float, float]]:
    """Corners in units of the radius, y downwards."""
    arm = 0.34
    return {
        "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
        "triangle": [(0.0, -1.0), (1.0, 0.75), (-1.0, 0.75)],
        "cross": [
            (-arm, -1), (arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm),
            (arm, 1), (-arm, 1), (-arm, arm), (-1, arm), (-1, -arm), (-arm, -arm),
        ],
        "star": _star(),
    }[shape]  # fmt: skip


RING_HOLE = 0.52
Fill = int | tuple[int, ...]  # a grey level, or one number for each channel


def _draw(draw: ImageDraw.ImageDraw, thing: Thing, color: Fill, hole: Fill, scale: int) -> None:
    x, y, r = thing.x * scale, thing.y * scale, thing.radius * scale
    if thing.shape in ("circle", "ring"):
        draw.ellipse((x - r, y - r, x + r, y + r), fill=color)
        if thing.shape == "ring":
            h = r * RING_HOLE
            draw.ellipse((x - h, y - h, x + h, y + h), fill=hole)
        return
    sin, cos = math.sin(math.radians(thing.turn)), math.cos(math.radians(thing.turn))
    draw.polygon([(x + r * (u * cos - v * sin), y + r * (u * sin + v * cos)) for u, v in _polygon(thing.shape)], color)


def render(scene: Scene, jitter: np.random.Generator | None = None) -> Image.Image:
    """Draw a scene as a 64x64 RGB image; `jitter` varies each object's colour by a few grey levels."""
    background = (scene.background,) * 3
    image = Image.new("RGB", (IMAGE_SIZE * SUPERSAMPLING,) * 2, background)
    draw = ImageDraw.Draw(image)
    for thing in scene.things:
        color = np.array(COLORS[thing.color])
        if jitter is not None:
            color = np.clip(color + jitter.integers(-12, 13, size=3), 0, 255)
        _draw(draw, thing, tuple(int(c) for c in color), background, SUPERSAMPLING)
    return image.reduce(SUPERSAMPLING)


@functools.cache
def template(shape: str, size: int, turn: float = 0.0) -> np.ndarray:
    """The alpha mask (0-1) of a shape turned by `turn` degrees, its bounding box stretched to `size` x `size`."""
    scale = 400
    image = Image.new("L", (scale, scale), 0)
    _draw(ImageDraw.Draw(image), Thing(shape, "red", scale / 2, scale / 2, scale * 0.4, turn), 255, 0, 1)
    return np.asarray(image.crop(image.getbbox()).resize((size, size), Image.Resampling.BOX), np.float32) / 255


def damage(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Soften, stretch, tint or add noise, as a generative model might; what the image shows stays readable."""
    if rng.random() < 0.35:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.3))))
    if rng.random() < 0.35:  # a smooth warp of up to about two pixels
        grid = np.stack(np.meshgrid(np.arange(IMAGE_SIZE), np.arange(IMAGE_SIZE)), -1).astype(np.float64)
        phase, waves = rng.uniform(0, 2 * np.pi, 2), rng.uniform(0.5, 2.0, 2)
        amplitude = rng.uniform(0, 2.0, 2)
        shift_x = amplitude[0] * np.sin(phase[0] + waves[0] * 2 * np.pi * grid[..., 1] / IMAGE_SIZE)
        shift_y = amplitude[1] * np.sin(phase[1] + waves[1] * 2 * np.pi * grid[..., 0] / IMAGE_SIZE)
        x = np.clip(np.rint(grid[..., 0] + shift_x), 0, IMAGE_SIZE - 1).astype(int)
        y = np.clip(np.rint(grid[..., 1] + shift_y), 0, IMAGE_SIZE - 1).astype(int)
        image = Image.fromarray(np.asarray(image)[y, x]).filter(ImageFilter.GaussianBlur(0.4))
    if rng.random() < 0.3:
        pixels = np.asarray(image, np.float32)
        noisy = pixels + rng.normal(0, rng.uniform(2, 14), pixels.shape)
        image = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    if rng.random() < 0.2:
        tinted = np.asarray(image, np.float32) * rng.uniform(0.9, 1.08, 3) + rng.uniform(-10, 10)
        image = Image.fromarray(np.clip(tinted, 0, 255).astype(np.uint8))
    return image
