"""Scenes of coloured shapes: what can be in an image, and how scenes are drawn at random.

Two worlds share the vocabulary. The *prompt world* is what prompts talk about: one object, two to four of a
kind, two objects in a relation, two objects with attributes. The *wide world* is what a vision-language model
must also be able to read, because generated images are not always what was asked for: none to six objects in
any combination.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

IMAGE_SIZE = 64
SHAPES = ("circle", "square", "triangle", "cross", "ring", "star")
COLORS = {
    "red": (216, 38, 38),
    "green": (44, 160, 60),
    "blue": (38, 84, 216),
    "yellow": (242, 200, 28),
    "purple": (146, 60, 176),
    "black": (28, 28, 30),
}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
RELATIONS = ("left", "right", "above", "below")
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
KINDS = ("single", "count", "relation", "pair")


@dataclass(frozen=True)
class Thing:
    """One object. `x, y` are the centre and `radius` half the height, all in pixels; `turn` is in degrees."""

    shape: str
    color: str
    x: float
    y: float
    radius: float
    turn: float = 0.0


@dataclass(frozen=True)
class Scene:
    """Objects on a light background of grey level `background` (0-255)."""

    things: tuple[Thing, ...]
    background: int = 240


def relation(a: Thing, b: Thing) -> str | None:
    """Where `a` lies as seen from `b`, or None when the pair is too diagonal to name one direction."""
    dx, dy = a.x - b.x, a.y - b.y
    if abs(dx) > 1.7 * abs(dy):
        return "left" if dx < 0 else "right"
    if abs(dy) > 1.7 * abs(dx):
        return "above" if dy < 0 else "below"
    return None


def place(kinds: list[tuple[str, str]], rng: np.random.Generator, relation_wanted: str | None = None) -> Scene:
    """Place (shape, color) objects without overlap, retrying until they fit.

    With `relation_wanted`, the first of two objects lies left / right / above / below the second.
    """
    big, small = (11.5, 8.5) if len(kinds) <= 2 else (9.5, 7.5) if len(kinds) <= 4 else (8.0, 6.5)
    background = int(rng.integers(232, 249))
    while True:
        things: list[Thing] = []
        for shape, color in kinds:
            for _ in range(30):
                radius = float(rng.uniform(small, big))
                x, y = rng.uniform(radius + 2, IMAGE_SIZE - radius - 2, size=2)
                if all(math.hypot(x - t.x, y - t.y) > 1.25 * (radius + t.radius) + 1 for t in things):
                    things.append(Thing(shape, color, float(x), float(y), radius, float(rng.uniform(-8, 8))))
                    break
            else:
                break
        if len(things) < len(kinds):
            continue
        if relation_wanted is not None and relation(things[0], things[1]) != relation_wanted:
            continue
        return Scene(tuple(things), background)


def random_kind(rng: np.random.Generator) -> tuple[str, str]:
    return str(rng.choice(SHAPES)), str(rng.choice(list(COLORS)))


def different_kind(other: tuple[str, str], rng: np.random.Generator) -> tuple[str, str]:
    """A (shape, color) whose shape differs from the other's, so that prompts without colours stay clear."""
    while True:
        kind = random_kind(rng)
        if kind[0] != other[0]:
            return kind


def wide_scene(rng: np.random.Generator) -> Scene:
    """A scene of the wide world: none to six objects, in up to three groups of equal objects, anywhere."""
    n = int(rng.choice(7, p=[0.03, 0.12, 0.22, 0.23, 0.2, 0.12, 0.08]))
    groups = min(n, int(rng.choice([1, 2, 3], p=[0.45, 0.35, 0.2])))
    kinds: list[tuple[str, str]] = []
    palette: list[tuple[str, str]] = []
    while len(palette) < groups:
        kind = random_kind(rng)
        if palette and rng.random() < 0.4:  # near misses: one attribute shared with another group
            kind = (palette[0][0], kind[1]) if rng.random() < 0.5 else (kind[0], palette[0][1])
        if kind not in palette:
            palette.append(kind)
    for index in range(n):
        kinds.append(palette[index] if index < groups else palette[int(rng.integers(groups))])
    return place(kinds, rng)
