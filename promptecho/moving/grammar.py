"""Captions of videos in plain English: "A red circle moves left and a blue square stays still."."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from promptecho.errors import DataError
from promptecho.moving.world import MOTIONS, SHAPES, Mover
from promptecho.shapes.world import COLORS

QUERY = "Describe this video in detail."
WORDINGS = ("moves {motion}", "is moving {motion}")
STILL = ("stays still", "is not moving")
_CLAUSE = re.compile(
    rf"an? (?P<color>{'|'.join(COLORS)}) (?P<shape>{'|'.join(SHAPES)}) "
    rf"(?:(?:moves|is moving) (?P<motion>{'|'.join(one for one in MOTIONS if one != 'still')})|{'|'.join(STILL)})"
)


def write(movers: tuple[Mover, ...], wording: int = 0) -> str:
    """The caption of what moves; `wording` 0 or 1."""

    def clause(mover: Mover) -> str:
        does = STILL[wording] if mover.motion == "still" else WORDINGS[wording].format(motion=mover.motion)
        return f"a {mover.color} {mover.shape} {does}"

    text = " and ".join(map(clause, movers)) + "."
    return text[0].upper() + text[1:]


def parse(caption: str) -> tuple[Mover, ...]:
    """Read a caption back.

    Raises:
        DataError: the caption is not in the language; names it.
    """
    found = []
    for part in " ".join(caption.split()).rstrip(".").lower().split(" and "):
        match = _CLAUSE.fullmatch(part)
        if match is None:
            raise DataError(f"caption {caption!r}: {part!r} is not a clause of the language of moving shapes")
        found.append(Mover(match["shape"], match["color"], match["motion"] or "still"))
    return tuple(found)


def corrupt(movers: tuple[Mover, ...], rng: np.random.Generator) -> tuple[Mover, ...]:
    """The same with exactly one fact wrong: a colour, a shape, or, as often as both, a motion; or two colours or
    motions swapped."""
    wrong = list(movers)
    index = int(rng.integers(len(wrong)))
    mover = wrong[index]
    what = str(rng.choice(["color", "shape", "motion", "motion", "swap"]))
    if what == "swap" and len(wrong) == 2:
        differ = [key for key in ("color", "motion") if len({getattr(one, key) for one in wrong}) == 2]
        if differ:
            key = str(rng.choice(differ))
            a, b = wrong
            return replace(a, **{key: getattr(b, key)}), replace(b, **{key: getattr(a, key)})
    options = {"color": list(COLORS), "shape": list(SHAPES), "motion": list(MOTIONS)}
    key = "motion" if what == "swap" else what
    taken = {getattr(one, key) for one in wrong} if key == "shape" else {getattr(mover, key)}
    wrong[index] = replace(mover, **{key: str(rng.choice([one for one in options[key] if one not in taken]))})
    return tuple(wrong)
