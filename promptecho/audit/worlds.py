"""The embedded worlds that pairs are drawn of, by name; none is imported before it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from promptecho.audit.drawn_pairs import DrawnWorld

WORLDS = {
    "shapes": "promptecho.audit.shapes_pairs:SHAPES",
    "gallery": "promptecho.audit.gallery_pairs:GALLERY",
    "posters": "promptecho.audit.gallery_pairs:POSTERS",
}
"""Name: where its world is."""


def world_named(name: str) -> DrawnWorld:
    """The world that pairs are drawn of.

    Raises:
        KeyError: `name` is none of `WORLDS`.
    """
    module, _, world = WORLDS[name].partition(":")
    return getattr(import_module(module), world)
