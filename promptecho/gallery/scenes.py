"""Scenes of the gallery: objects with a size and a texture, and how they are placed at random."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from promptecho.shapes.world import COLORS, IMAGE_SIZE, SHAPES, relation

SIZES = ("small", "medium", "large")  # medium is never said
RADII = {"small": (5.5, 6.3), "medium": (7.6, 8.8), "large": (10.2, 11.5)}  # pixels
TEXTURES = ("plain", "striped", "dotted")  # plain is never said
MOST_THINGS = 6


@dataclass(frozen=True)
class Appearance:
    """What an object looks like."""

    shape: str
    color: str
    size: str = "medium"
    texture: str = "plain"


@dataclass(frozen=True)
class PlacedThing:
    """An object and where it is: centre `x, y` and `radius` (half its height) in pixels, `turn` in degrees."""

    look: Appearance
    x: float
    y: float
    radius: float
    turn: float = 0.0


@dataclass(frozen=True)
class DenseScene:
    """Objects on a light background of grey level `background` (0-255)."""

    things: tuple[PlacedThing, ...]
    background: int = 240


def where(a: PlacedThing, b: PlacedThing) -> str | None:
    """Where `a` lies as seen from `b`: left, right, above, below, or None when too diagonal."""
    return relation(a, b)  # type: ignore[arg-type]  # it reads `x` and `y` alone


def random_look(rng: np.random.Generator, crowded: bool = False) -> Appearance:
    """A look; small objects are plain, since a texture needs room; nothing is large in a crowd."""
    sizes = [0.25, 0.75, 0.0] if crowded else [0.25, 0.5, 0.25]
    size = str(rng.choice(SIZES, p=sizes))
    texture = "plain" if size == "small" else str(rng.choice(TEXTURES, p=[0.6, 0.2, 0.2]))
    return Appearance(str(rng.choice(SHAPES)), str(rng.choice(list(COLORS))), size, texture)


class NoRoom(Exception):
    """A scene's objects were not placed beside each other in the attempts allowed."""


def place_looks(
    looks: list[Appearance], rng: np.random.Generator, relations: tuple[tuple[int, str, int], ...] = (),
    attempts: int | None = None,
) -> DenseScene:  # fmt: skip
    """Place objects without overlap, in order, each drawn again until it fits.

    `relations` are (index, direction, index): the first lies in that direction as seen from the second. `attempts` is
    how often all are placed anew at most; None: without end, for objects that are known to fit.

    Raises:
        NoRoom: they did not fit in `attempts`.
    """
    background = int(rng.integers(232, 249))
    tried = 0
    while attempts is None or tried < attempts:
        tried += 1
        things: list[PlacedThing] = []
        for index, look in enumerate(looks):
            wanted = [(a, direction, b) for a, direction, b in relations if max(a, b) == index]
            for _ in range(60):
                radius = float(rng.uniform(*RADII[look.size]))
                x, y = rng.uniform(radius + 1.5, IMAGE_SIZE - radius - 1.5, size=2)
                thing = PlacedThing(look, float(x), float(y), radius, float(rng.uniform(-8, 8)))
                near = any(math.hypot(x - t.x, y - t.y) <= 1.2 * (radius + t.radius) + 1 for t in things)
                placed = [*things, thing]
                if not near and all(where(placed[a], placed[b]) == direction for a, direction, b in wanted):
                    things = placed
                    break
            else:
                break
        if len(things) == len(looks):
            return DenseScene(tuple(things), background)
    raise NoRoom(f"no room for {len(looks)} objects")


def any_scene(rng: np.random.Generator) -> DenseScene:
    """None to six objects in up to three groups of equal look, anywhere: what a reader must be ready for."""
    n = int(rng.choice(7, p=[0.03, 0.17, 0.25, 0.23, 0.17, 0.1, 0.05]))
    groups = min(n, int(rng.choice([1, 2, 3], p=[0.3, 0.35, 0.35])))
    palette: list[Appearance] = []
    while len(palette) < groups:
        look = random_look(rng, crowded=n > 3)
        if palette and rng.random() < 0.3:  # near misses: an attribute shared with another group
            first = palette[0]
            look = Appearance(first.shape, look.color, look.size, look.texture)
        if look not in palette:
            palette.append(look)
    looks = [palette[i] if i < groups else palette[int(rng.integers(groups))] for i in range(n)]
    return place_looks(looks, rng)
