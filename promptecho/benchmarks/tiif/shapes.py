"""TIIF-Bench prompts over the shapes vocabulary, in the packed format, with questions that the oracle can answer.

Descriptions are captions of the world's own language, so that the text encoder knows every word: the short one is 'a
photo of ...', the long one 'The image shows ...'. Of the nine sub-scores seven can be asked here. There is neither
text nor style in this world, and no texture, depth or action either; negation has no words in its language. So Overall
is the mean of seven sub-scores, each over the attributes below, and `coverage` in the summary says 13 of 39. It can be
compared within this world alone.
"""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from promptecho.benchmarks.tiif.prompt_rows import (
    YES,
    Asked,
    Kinds,
    ObjectName,
    ask_another,
    ask_difference,
    ask_more,
    ask_number,
    ask_presence,
    ask_relation,
    ask_value,
    draw_subjects,
    pick,
    rows_of,
)
from promptecho.files import write_jsonl
from promptecho.shapes.grammar import Claim, Group, write
from promptecho.shapes.world import COLORS, RELATIONS, SHAPES

SHORT, LONG = 3, 2  # wordings of grammar.write
PAIRS = list(permutations(SHAPES, 2))
COLOR_PAIRS = list(permutations(COLORS, 2))
COUNTS = (2, 3, 4)


def _named(group: Group, colored: bool = True) -> ObjectName:
    """'red circle', 'circles'."""
    return ObjectName(group.shape, group.count, (group.color,) if group.color and colored else ())


def _color(group: Group) -> Asked:
    assert group.color is not None, "asked only of groups that have one"
    return ask_value(_named(group, colored=False), group.color, "color")


def _relations(claim: Claim, colored: bool = True) -> list[Asked]:
    """The claim's relation and its opposite."""
    first, second = claim.groups
    assert claim.relation is not None, "asked only of claims that have one"
    return ask_relation(_named(first, colored), claim.relation, _named(second, colored))


def _more(claim: Claim) -> list[Asked]:
    first, second = claim.groups
    return ask_more(_named(first), _named(second))


def _absent(claim: Claim) -> Asked:
    return ask_another({group.shape for group in claim.groups})


def _all_there(claim: Claim, colored: bool = True) -> list[Asked]:
    return [ask_presence(_named(group, colored)) for group in claim.groups]


def _counts(claim: Claim, colored: bool = True) -> list[Asked]:
    return [ask_number(_named(group, colored)) for group in claim.groups]


def _ask_everything(claim: Claim) -> list[Asked]:
    total = sum(group.count for group in claim.groups)
    return [
        *_all_there(claim),
        *_counts(claim),
        (f"Is the number of objects {total}?", YES),
        _absent(claim),
    ]


def _pair(rng: np.random.Generator, colors: bool, same_shape: bool = False, counts: tuple[int, int] = (1, 1)) -> Claim:
    a, b = [pick(SHAPES, rng)] * 2 if same_shape else pick(PAIRS, rng)
    c, d = pick(COLOR_PAIRS, rng) if colors else (None, None)
    return Claim((Group(counts[0], a, c), Group(counts[1], b, d)))


def _related(claim: Claim, rng: np.random.Generator) -> Claim:
    return Claim(claim.groups, pick(RELATIONS, rng))


def _three_groups(rng: np.random.Generator) -> Claim:
    shapes = rng.permutation(SHAPES)[:3]
    counts = pick([(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2), (2, 2, 1), (3, 1, 1)], rng)
    return Claim(tuple(Group(n, str(s), pick(list(COLORS), rng)) for n, s in zip(counts, shapes, strict=True)))


def _uneven(rng: np.random.Generator) -> tuple[int, int]:
    return pick([(2, 1), (3, 1), (3, 2), (4, 1)], rng)


def _one_group(rng: np.random.Generator, colors: bool) -> Claim:
    return Claim((Group(pick(COUNTS, rng), pick(SHAPES, rng), pick(list(COLORS), rng) if colors else None),))


# Attribute -> how to draw a claim, and what to ask about it.
KINDS: Kinds = {
    "shape+color": (
        lambda rng: _pair(rng, colors=True),
        lambda claim: [*_all_there(claim, colored=False), *map(_color, claim.groups), _absent(claim)],
    ),
    "2d_spatial_relation": (
        lambda rng: _related(_pair(rng, colors=False), rng),
        lambda claim: [*_all_there(claim), *_relations(claim)],
    ),
    "numeracy": (
        lambda rng: _one_group(rng, colors=False),
        lambda claim: [*_all_there(claim), *_counts(claim), _absent(claim)],
    ),
    "differentiation": (
        lambda rng: _pair(rng, colors=False),
        lambda claim: [*_all_there(claim), ask_difference("object", "shape")],
    ),
    "comparison": (
        lambda rng: _pair(rng, colors=False, counts=_uneven(rng)),
        lambda claim: [*_all_there(claim), *_more(claim)],
    ),
    "color+2d": (
        lambda rng: _related(_pair(rng, colors=True), rng),
        lambda claim: [
            *_all_there(claim, colored=False),
            *_relations(claim, colored=False),
            *map(_color, claim.groups),
        ],
    ),
    "numeracy+color": (
        lambda rng: _one_group(rng, colors=True),
        lambda claim: [
            *_all_there(claim, colored=False),
            *_counts(claim, colored=False),
            *map(_color, claim.groups),
        ],
    ),
    "comparison+color": (
        lambda rng: _pair(rng, colors=True, same_shape=True, counts=_uneven(rng)),
        lambda claim: [*_all_there(claim), *_more(claim)],
    ),
    "differentiation+color": (
        lambda rng: _pair(rng, colors=True, same_shape=True),
        lambda claim: [
            *_all_there(claim),
            ask_difference(claim.groups[0].shape, "color"),
        ],
    ),
    "numeracy+2d": (
        lambda rng: _related(_pair(rng, colors=False, counts=(2, 1)), rng),
        lambda claim: [*_all_there(claim), *_counts(claim), *_relations(claim)],
    ),
    "comparison+2d": (
        lambda rng: _related(_pair(rng, colors=True, same_shape=True, counts=(2, 1)), rng),
        lambda claim: [*_all_there(claim), *_more(claim), *_relations(claim)],
    ),
    "differentiation+2d": (
        lambda rng: _related(_pair(rng, colors=True, same_shape=True), rng),
        lambda claim: [*_all_there(claim), *_relations(claim)],
    ),
    "real_world": (_three_groups, _ask_everything),
}


def tiif_claims(per_attribute: int, seed: int) -> list[tuple[str, Claim]]:
    """(attribute, claim) of up to `per_attribute` different prompts each; fewer where the vocabulary has no more."""
    return draw_subjects(KINDS, per_attribute, seed, "tiif")


def tiif_prompts(per_attribute: int, seed: int) -> list[dict[str, Any]]:
    """The prompts in the packed format (benchmarks.tiif.prompts); the same seed gives the same prompts.

    Raises:
        DataError: `per_attribute` is not positive.
    """
    return rows_of(tiif_claims(per_attribute, seed), KINDS, lambda claim: (write(claim, SHORT), write(claim, LONG)))


def write_tiif_prompts(per_attribute: int, seed: int, out: Path) -> int:
    """Write the prompts as one packed file; returns how many rows, each of which is two prompts."""
    rows = tiif_prompts(per_attribute, seed)
    write_jsonl(out, rows)
    return len(rows)
