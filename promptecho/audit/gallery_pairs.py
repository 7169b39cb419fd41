"""The wider embedded world's pairs: captions of dense scenes, and posters with their texts as a label."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from promptecho.audit.drawn_pairs import DrawnWorld
from promptecho.gallery.captions import (
    DenseClaim,
    DenseGroup,
    corrupt_dense,
    dense_scene_of,
    random_dense_claim,
    write_dense,
    wrong_kinds,
)
from promptecho.gallery.drawing import draw_poster, draw_scene
from promptecho.gallery.look_oracle import detect_things, judge_dense
from promptecho.gallery.posters import Poster, misspell, random_poster, write_label
from promptecho.gallery.scenes import NoRoom
from promptecho.gallery.text_oracle import judge_poster
from promptecho.shapes.world import COLORS, SHAPES

WORDINGS = 3  # those that the VLM's captions have
ATTEMPTS = 100  # to place the objects of a changed claim: six large ones do not fit


def changed_claims(claim: DenseClaim, rng: np.random.Generator) -> dict[str, tuple[DenseClaim, DenseClaim]]:
    """For each kind of fact that the claim has, the claim with it changed.

    `missing`: the changed text names one object more, the changed image lacks one. `negation`: the changed text denies
    what is there, the changed image shows what the true text denies. A claim of one group has no image for `missing`,
    and one of four groups none for `negation`: these kinds are left out there.
    """
    found = {}
    for kind in wrong_kinds(claim):
        said = corrupt_dense(claim, rng, kind)
        drawn = DRAWN[kind](claim, rng) if kind in DRAWN else said
        if drawn is not None:
            found[kind] = (said, drawn)
    return found


def _without_one(claim: DenseClaim, rng: np.random.Generator) -> DenseClaim | None:
    if len(claim.groups) == 1:
        return None
    gone = int(rng.integers(len(claim.groups)))
    index = {old: new for new, old in enumerate(i for i in range(len(claim.groups)) if i != gone)}
    relations = tuple((index[a], d, index[b]) for a, d, b in claim.relations if gone not in (a, b))
    return DenseClaim(tuple(claim.groups[i] for i in index), relations, claim.absent)


def _with_the_denied(claim: DenseClaim, rng: np.random.Generator) -> DenseClaim | None:
    if len(claim.groups) > 3:
        return None
    denied = claim.absent[0]
    colors = [color for color in COLORS if color not in claim.absent]
    shapes = [shape for shape in SHAPES if shape not in {group.shape for group in claim.groups} | set(claim.absent)]
    if denied in COLORS:
        added = DenseGroup(1, str(rng.choice(shapes)), denied)
    else:
        added = DenseGroup(1, denied, str(rng.choice(colors)) if any(group.color for group in claim.groups) else None)
    return replace(claim, groups=(*claim.groups, added), absent=claim.absent[1:])


DRAWN = {"missing": _without_one, "negation": _with_the_denied}
"""Kinds whose changed text can't be drawn, or is true of more images: what is drawn in its place."""


def changed_posters(poster: Poster, rng: np.random.Generator) -> dict[str, tuple[Poster, Poster]]:
    """A poster with a letter changed, a text missing, or two texts in each other's role."""
    found = {"letter": misspell(poster, rng)}
    if len(poster.texts) > 1:
        gone = int(rng.integers(len(poster.texts)))
        found["missing"] = Poster(poster.ground, poster.texts[:gone] + poster.texts[gone + 1 :])
        first, second = (int(i) for i in rng.choice(len(poster.texts), 2, replace=False))
        texts = list(poster.texts)
        (one, word), (other, its) = texts[first], texts[second]
        texts[first], texts[second] = (one, its), (other, word)
        if one != other and word != its:
            found["swap"] = Poster(poster.ground, tuple(texts))
    return {kind: (found[kind], found[kind]) for kind in sorted(found)}


def _draw(claim: DenseClaim, rng: np.random.Generator) -> Image.Image | None:
    try:
        return draw_scene(dense_scene_of(claim, rng, ATTEMPTS), rng)
    except NoRoom:
        return None


GALLERY = DrawnWorld(
    name="gallery",
    draw_claim=random_dense_claim,
    wordings=WORDINGS,
    write=write_dense,
    changed=changed_claims,
    draw=_draw,
    shows=lambda claim, image: judge_dense(claim, detect_things(image)),
)
POSTERS = DrawnWorld(
    name="posters",
    draw_claim=lambda rng: random_poster(rng, held_out=True),
    wordings=1,
    write=lambda poster, _: write_label(poster),
    changed=changed_posters,
    draw=draw_poster,
    shows=judge_poster,
)
