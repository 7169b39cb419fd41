"""Scenes and posters of the gallery to pixels."""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image, ImageDraw

from promptecho.gallery.glyphs import CELL, glyph
from promptecho.gallery.posters import GROUNDS, SLOTS, Poster, slots_of
from promptecho.gallery.scenes import DenseScene, PlacedThing
from promptecho.shapes import render as plain
from promptecho.shapes.world import COLORS, IMAGE_SIZE, Thing

SCALE = plain.SUPERSAMPLING
LIGHT = 0.4  # share of the colour in the light parts of a texture; the rest is background
MARGIN = 1  # cells left of the text
BULLET = slice(2, 6)  # pixels of its cell, both ways


@functools.cache
def texture_mask(texture: str) -> np.ndarray:
    """Where a texture is light: [256, 256] bools. Both repeat every four pixels, as the VAE's latents do."""
    y, x = np.mgrid[0 : IMAGE_SIZE * SCALE, 0 : IMAGE_SIZE * SCALE] / SCALE % 4 - 2
    return {"plain": y > 9, "striped": y >= 0, "dotted": x**2 + y**2 < 1.4**2}[texture]


def _mask(thing: PlacedThing) -> Image.Image:
    image = Image.new("L", (IMAGE_SIZE * SCALE,) * 2, 0)
    as_plain = Thing(thing.look.shape, thing.look.color, thing.x, thing.y, thing.radius, thing.turn)
    # Private, and it stays so: its file is hashed into finished scores.
    plain._draw(ImageDraw.Draw(image), as_plain, 255, 0, SCALE)
    return image


def draw_scene(scene: DenseScene, jitter: np.random.Generator | None = None) -> Image.Image:
    """A scene as a 64x64 RGB image; `jitter` varies each object's colour by a few grey levels."""
    image = Image.new("RGB", (IMAGE_SIZE * SCALE,) * 2, (scene.background,) * 3)
    for thing in scene.things:
        color = np.array(COLORS[thing.look.color], np.float32)
        if jitter is not None:
            color = np.clip(color + jitter.integers(-12, 13, size=3), 0, 255)
        light = LIGHT * color + (1 - LIGHT) * scene.background
        tile = np.where(texture_mask(thing.look.texture)[..., None], light, color)
        image.paste(Image.fromarray(tile.round().astype(np.uint8)), (0, 0), _mask(thing))
    return image.reduce(SCALE)


def ink_of(poster: Poster) -> np.ndarray:
    """Where a poster has ink: [64, 64], 0 or 1."""
    ink = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.float32)
    for slot, (role, word) in zip(slots_of(poster), poster.texts, strict=True):
        top = SLOTS[slot][1] * CELL
        for index, character in enumerate(word):
            cell = glyph(character, role == "main_title")
            left = (MARGIN + index) * CELL
            ink[top : top + cell.shape[0], left : left + CELL] = cell
        if role == "selling_points":
            ink[top : top + CELL, :CELL][BULLET, BULLET] = 1
    return ink


def draw_poster(poster: Poster, jitter: np.random.Generator | None = None) -> Image.Image:
    """A poster as a 64x64 RGB image; `jitter` varies ground and ink by a few grey levels."""
    ground, ink = (np.array(color, np.float32) for color in GROUNDS[poster.ground])
    if jitter is not None:
        ground = np.clip(ground + jitter.integers(-10, 11, size=3), 0, 255)
        ink = np.clip(ink + jitter.integers(-10, 11, size=3), 0, 255)
    where = ink_of(poster)[..., None]
    return Image.fromarray((where * ink + (1 - where) * ground).round().astype(np.uint8))
