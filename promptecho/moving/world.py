"""Shapes that move: what can be in a video of this world, and how videos are drawn at random.

A frame is a scene of the shapes world, drawn by its renderer and made half as large, so that its oracle reads frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from promptecho.shapes.world import COLORS, IMAGE_SIZE, Scene, Thing

FRAME_SIZE = 32  # pixels; coordinates are those of scenes of 64
FRAMES = 5
SHAPES = ("circle", "square", "triangle", "cross")  # the others have parts that are too thin for frames of this size
MOTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}
STRIDE = (4.5, 5.5)  # from frame to frame
RADII = ((9.5, 12.0), (8.5, 10.0), (6.5, 7.5))  # of one, two or three movers


@dataclass(frozen=True)
class Mover:
    """One object: its kind, and where it goes."""

    shape: str
    color: str
    motion: str


def random_movers(rng: np.random.Generator, count: int | None = None) -> tuple[Mover, ...]:
    """One or two movers, or `count`; they differ in shape."""
    count = count or int(rng.choice([1, 2], p=[0.4, 0.6]))
    shapes = rng.permutation(SHAPES)[:count]
    return tuple(Mover(str(shape), str(rng.choice(list(COLORS))), str(rng.choice(list(MOTIONS)))) for shape in shapes)


def place(movers: tuple[Mover, ...], rng: np.random.Generator) -> list[Scene]:
    """A scene for each of `FRAMES`, in which the movers do what they do without a touch of each other or the edge."""
    small, big = RADII[len(movers) - 1]
    background = int(rng.integers(232, 249))
    while True:
        paths = []
        for mover in movers:
            radius, stride = float(rng.uniform(small, big)), float(rng.uniform(*STRIDE))
            x, y = (float(value) for value in rng.uniform(radius + 2, IMAGE_SIZE - radius - 2, size=2))
            start = Thing(mover.shape, mover.color, x, y, radius, float(rng.uniform(-8, 8)))
            dx, dy = (stride * part for part in MOTIONS[mover.motion])
            paths.append([replace(start, x=x + dx * t, y=y + dy * t) for t in range(FRAMES)])
        if all(_fits(things) for things in zip(*paths, strict=True)):
            return [Scene(things, background) for things in zip(*paths, strict=True)]


def _fits(things: tuple[Thing, ...]) -> bool:
    """Whether all are inside of the frame and none touches another."""
    if not all(one.radius + 2 <= place <= IMAGE_SIZE - one.radius - 2 for one in things for place in (one.x, one.y)):
        return False
    pairs = [(a, b) for index, a in enumerate(things) for b in things[:index]]
    return all(math.hypot(a.x - b.x, a.y - b.y) > 1.25 * (a.radius + b.radius) + 1 for a, b in pairs)
