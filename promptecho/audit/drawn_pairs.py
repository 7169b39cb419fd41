"""Pairs of an embedded world, exact: its grammar changes one fact, and its oracle says that the pair is one.

Each text has its own image. For each kind of fact there is a changed text, and an image drawn from it by the same
random numbers. Both sides are asked: the true text against the changed one on the true image, as captions are compared,
and the true image against the changed one for the true text, as training compares images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from promptecho.audit.material import Ask, AuditImage, FactPair, Pairs
from promptecho.seeds import derive_seed


@dataclass(frozen=True)
class DrawnWorld:
    """What an embedded world says, draws and reads; its claims are what one of its texts says.

    `changed` gives for each kind of fact that a claim has two claims with it changed: one to write, one to draw. They
    are the same one, but where what is wrong to say can't be drawn. `draw` gives None where an image has no room for
    what a claim says.
    """

    name: str
    draw_claim: Callable[[np.random.Generator], Any]
    wordings: int
    write: Callable[[Any, int], str]
    changed: Callable[[Any, np.random.Generator], dict[str, tuple[Any, Any]]]
    draw: Callable[[Any, np.random.Generator], Image.Image | None]
    shows: Callable[[Any, Image.Image], bool]


def drawn_pairs(world: DrawnWorld, n: int, seed: int) -> Pairs:
    """Pairs of `n` texts. A pair that the oracle does not confirm is left out and counted."""
    made = Pairs(source=world.name, n_captions=n)
    for index in range(n):
        rng = np.random.default_rng(derive_seed(seed, f"audit {world.name}", index))
        claim, wording, drawing = world.draw_claim(rng), int(rng.integers(world.wordings)), int(rng.integers(2**31))
        name = f"{index:05d}"
        true = _drawn(world, claim, drawing, f"{name}.png")
        caption = world.write(claim, wording)
        for kind, (said, drawn) in world.changed(claim, rng).items():
            false = _drawn(world, drawn, drawing, f"{name}-{kind}.png")
            if true is None or false is None:
                made.count(kind, "there is no room to draw it")
                continue
            seen, other = true.open(), false.open()
            right = world.shows(claim, seen) and world.shows(drawn, other)
            if not right or world.shows(said, seen) or world.shows(claim, other):
                made.count(kind, "the oracle does not confirm it")
                continue
            made.count(kind, "made")
            asked = Ask(name, true, caption)
            made.pairs.append(FactPair(kind, "text", asked, Ask(name, true, world.write(said, wording))))
            made.pairs.append(FactPair(kind, "image", asked, Ask(name, false, caption)))
    return made


def _drawn(world: DrawnWorld, claim: Any, drawing: int, name: str) -> AuditImage | None:
    image = world.draw(claim, np.random.default_rng(drawing))
    return None if image is None else AuditImage(name, image)
