"""Pairs of the embedded world, exact: the grammar changes one fact, and the oracle says that the pair is one.

Each caption has its own image. For each kind of fact there is a changed caption, and an image rendered from it by the
same random numbers. Both sides are asked: the true caption against the changed one on the true image, as captions are
compared, and the true image against the changed one for the true caption, as training compares images.
"""

from __future__ import annotations

import numpy as np

from promptecho.audit.material import Ask, AuditImage, FactPair, Pairs
from promptecho.seeds import derive_seed
from promptecho.shapes.grammar import Claim, corrupt, random_claim, scene_of, write, wrong_fact
from promptecho.shapes.oracle import detect, judge
from promptecho.shapes.render import render

NAMES = {"shape": "object"}  # the others have the audit's names
TRIES = 40  # a caption's kinds are drawn with a chance of a seventh or more: one is missed once in 500


def changed_claims(claim: Claim, rng: np.random.Generator) -> dict[str, Claim]:
    """For each kind of fact that the claim has, the claim with it changed."""
    found: dict[str, Claim] = {}
    for _ in range(TRIES):
        changed = corrupt(claim, rng)
        fact = wrong_fact(claim, changed)
        found.setdefault(NAMES.get(fact, fact), changed)
    if len(claim.groups) > 1:
        kept = int(rng.integers(len(claim.groups)))
        found["missing"] = Claim((claim.groups[kept],))
    return {kind: found[kind] for kind in sorted(found)}


def shapes_pairs(n: int, seed: int) -> Pairs:
    """Pairs of `n` captions. A pair that the oracle does not confirm is left out and counted."""
    made = Pairs(source="shapes", n_captions=n)
    for index in range(n):
        rng = np.random.default_rng(derive_seed(seed, "audit shapes", index))
        claim, wording, drawing = random_claim(rng), int(rng.integers(3)), int(rng.integers(2**31))
        name = f"{index:05d}"
        true = _drawn(claim, drawing, f"{name}.png")
        caption = write(claim, wording)
        for kind, changed in changed_claims(claim, rng).items():
            false = _drawn(changed, drawing, f"{name}-{kind}.png")
            seen, other = detect(true.open()), detect(false.open())
            if not judge(claim, seen) or judge(changed, seen) or judge(claim, other) or not judge(changed, other):
                made.count(kind, "the oracle does not confirm it")
                continue
            made.count(kind, "made")
            right = Ask(name, true, caption)
            made.pairs.append(FactPair(kind, "text", right, Ask(name, true, write(changed, wording))))
            made.pairs.append(FactPair(kind, "image", right, Ask(name, false, caption)))
    return made


def _drawn(claim: Claim, drawing: int, name: str) -> AuditImage:
    rng = np.random.default_rng(drawing)
    return AuditImage(name, render(scene_of(claim, rng), rng))
