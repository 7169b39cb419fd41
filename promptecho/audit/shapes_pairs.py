"""The first embedded world's pairs."""

from __future__ import annotations

import numpy as np

from promptecho.audit.drawn_pairs import DrawnWorld
from promptecho.shapes.grammar import Claim, corrupt, random_claim, scene_of, write, wrong_fact
from promptecho.shapes.oracle import detect, judge
from promptecho.shapes.render import render

NAMES = {"shape": "object"}  # the others have the audit's names
TRIES = 40  # a caption's kinds are drawn with a chance of a seventh or more: one is missed once in 500


def changed_claims(claim: Claim, rng: np.random.Generator) -> dict[str, tuple[Claim, Claim]]:
    """For each kind of fact that the claim has, the claim with it changed."""
    found: dict[str, Claim] = {}
    for _ in range(TRIES):
        changed = corrupt(claim, rng)
        fact = wrong_fact(claim, changed)
        found.setdefault(NAMES.get(fact, fact), changed)
    if len(claim.groups) > 1:
        kept = int(rng.integers(len(claim.groups)))
        found["missing"] = Claim((claim.groups[kept],))
    return {kind: (found[kind], found[kind]) for kind in sorted(found)}


SHAPES = DrawnWorld(
    name="shapes",
    draw_claim=random_claim,
    wordings=3,
    write=write,
    changed=changed_claims,
    draw=lambda claim, rng: render(scene_of(claim, rng), rng),
    shows=lambda claim, image: judge(claim, detect(image)),
)
