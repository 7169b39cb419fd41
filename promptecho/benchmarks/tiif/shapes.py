"""TIIF-Bench prompts over the shapes vocabulary, in the packed format, with questions that the oracle can answer.

Descriptions are captions of the world's own language, so that the text encoder knows every word: the short one is 'a
photo of ...', the long one 'The image shows ...'. Of the nine sub-scores seven can be asked here. There is neither
text nor style in this world, and no texture, depth or action either; negation has no words in its language. So Overall
is the mean of seven sub-scores, each over the attributes below, and `coverage` in the summary says 13 of 39. It can be
compared within this world alone.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from promptecho.errors import DataError
from promptecho.files import write_jsonl
from promptecho.seeds import derive_seed
from promptecho.shapes.grammar import LONG_RELATION, Claim, Group, plural, write
from promptecho.shapes.world import COLORS, OPPOSITE, RELATIONS, SHAPES

SHORT, LONG = 3, 2  # wordings of grammar.write
YES, NO = "yes", "no"
Asked = tuple[str, str]  # question, expected answer
PAIRS = list(permutations(SHAPES, 2))
COLOR_PAIRS = list(permutations(COLORS, 2))
COUNTS = (2, 3, 4)


def _name(group: Group, colored: bool = True) -> str:
    """'red circle', 'circles'."""
    color = f"{group.color} " if group.color and colored else ""
    return color + (group.shape if group.count == 1 else plural(group.shape))


def _be(group: Group) -> str:
    return "Is" if group.count == 1 else "Are"


def _there(group: Group, colored: bool = True) -> Asked:
    article = "Is there a" if group.count == 1 else "Are there"
    return f"{article} {_name(group, colored)} in the image?", YES


def _count(group: Group, colored: bool = True) -> Asked:
    many = Group(2, group.shape, group.color)  # "the number of circles", however many
    return f"Is the number of {_name(many, colored)} {group.count}?", YES


def _color(group: Group) -> Asked:
    return f"{_be(group)} the {_name(group, colored=False)} {group.color} in color?", YES


def _relations(claim: Claim, colored: bool = True) -> list[Asked]:
    """The claim's relation and its opposite."""
    first, second = claim.groups
    assert claim.relation is not None, "asked only of claims that have one"
    return [
        (f"{_be(first)} the {_name(first, colored)} {LONG_RELATION[word]} the {_name(second, colored)}?", expected)
        for word, expected in ((claim.relation, YES), (OPPOSITE[claim.relation], NO))
    ]


def _more(claim: Claim) -> list[Asked]:
    a, b = (_name(Group(2, group.shape, group.color)) for group in claim.groups)
    return [
        (f"Are there more {a} than {b} in the image?", YES),
        (f"Are there more {b} than {a} in the image?", NO),
    ]


def _absent(claim: Claim) -> Asked:
    """A shape that the claim does not name: the first in the vocabulary's order after those that it does."""
    last = max(SHAPES.index(group.shape) for group in claim.groups)
    order = [*SHAPES[last + 1 :], *SHAPES]
    shape = next(name for name in order if name not in {group.shape for group in claim.groups})
    return f"Is there a {shape} in the image?", NO


def _all_there(claim: Claim, colored: bool = True) -> list[Asked]:
    return [_there(group, colored) for group in claim.groups]


def _ask_everything(claim: Claim) -> list[Asked]:
    total = sum(group.count for group in claim.groups)
    return [
        *_all_there(claim),
        *(_count(group) for group in claim.groups),
        (f"Is the number of objects {total}?", YES),
        _absent(claim),
    ]


def _pick(options: Any, rng: np.random.Generator) -> Any:
    return options[int(rng.integers(len(options)))]


def _pair(rng: np.random.Generator, colors: bool, same_shape: bool = False, counts: tuple[int, int] = (1, 1)) -> Claim:
    a, b = [_pick(SHAPES, rng)] * 2 if same_shape else _pick(PAIRS, rng)
    c, d = _pick(COLOR_PAIRS, rng) if colors else (None, None)
    return Claim((Group(counts[0], a, c), Group(counts[1], b, d)))


def _related(claim: Claim, rng: np.random.Generator) -> Claim:
    return Claim(claim.groups, _pick(RELATIONS, rng))


def _three_groups(rng: np.random.Generator) -> Claim:
    shapes = rng.permutation(SHAPES)[:3]
    counts = _pick([(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2), (2, 2, 1), (3, 1, 1)], rng)
    return Claim(tuple(Group(n, str(s), _pick(list(COLORS), rng)) for n, s in zip(counts, shapes, strict=True)))


def _uneven(rng: np.random.Generator) -> tuple[int, int]:
    return _pick([(2, 1), (3, 1), (3, 2), (4, 1)], rng)


def _one_group(rng: np.random.Generator, colors: bool) -> Claim:
    return Claim((Group(_pick(COUNTS, rng), _pick(SHAPES, rng), _pick(list(COLORS), rng) if colors else None),))


# Attribute -> how to draw a claim, and what to ask about it.
KINDS: dict[str, tuple[Callable[[np.random.Generator], Claim], Callable[[Claim], list[Asked]]]] = {
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
        lambda claim: [*_all_there(claim), *map(_count, claim.groups), _absent(claim)],
    ),
    "differentiation": (
        lambda rng: _pair(rng, colors=False),
        lambda claim: [*_all_there(claim), ("Are there two objects of different shapes in the image?", YES)],
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
            *(_count(group, colored=False) for group in claim.groups),
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
            (f"Are there two {plural(claim.groups[0].shape)} of different colors in the image?", YES),
        ],
    ),
    "numeracy+2d": (
        lambda rng: _related(_pair(rng, colors=False, counts=(2, 1)), rng),
        lambda claim: [*_all_there(claim), *map(_count, claim.groups), *_relations(claim)],
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
    drawn = []
    for attribute, (draw, _) in KINDS.items():
        rng = np.random.default_rng(derive_seed(seed, "tiif", attribute))
        claims: dict[Claim, None] = {}
        for _ in range(per_attribute * 50 + 1000):  # enough to come across all of a small vocabulary
            if len(claims) == per_attribute:
                break
            claims[draw(rng)] = None
        drawn += [(attribute, claim) for claim in claims]
    return drawn


def tiif_prompts(per_attribute: int, seed: int) -> list[dict]:
    """The prompts in the packed format (benchmarks.tiif.prompts); the same seed gives the same prompts.

    Raises:
        DataError: `per_attribute` is not positive.
    """
    if per_attribute < 1:
        raise DataError(f"TIIF prompts over the shapes: {per_attribute} of each attribute; ask for 1 or more")
    rows: list[dict] = []
    indices: dict[str, int] = {}
    for attribute, claim in tiif_claims(per_attribute, seed):
        asked = KINDS[attribute][1](claim)
        rows.append(
            {
                "type": attribute,
                "index": indices.setdefault(attribute, 0),
                "short_description": write(claim, SHORT),
                "long_description": write(claim, LONG),
                "questions": [question for question, _ in asked],
                "answers": [expected for _, expected in asked],
            }
        )
        indices[attribute] += 1
    return rows


def write_tiif_prompts(per_attribute: int, seed: int, out: Path) -> int:
    """Write the prompts as one packed file; returns how many rows, each of which is two prompts."""
    rows = tiif_prompts(per_attribute, seed)
    write_jsonl(out, rows)
    return len(rows)
