"""TIIF-Bench prompts over the gallery, in the packed format, with questions that the gallery's oracles can answer.

Descriptions are captions and posters' prompts of the gallery's own language: the short one is 'a photo of ...' or 'A
red poster with ...', the long one 'The image shows ...'. 26 of the 39 attributes can be asked here, in eight of the
nine sub-scores; the others need depth, action or style. So Overall is the mean of eight sub-scores, and can be
compared within this world alone.

A shape is the noun of this language, so for `shape+2d` objects are named by their colours and asked for their shapes.
`comparison` asks which is bigger or of which there are more; `differentiation` has two objects of one shape that differ
in size, colour or texture. The embedded text-to-image model was never asked for such pairs in training.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from promptecho.benchmarks.tiif.prompt_rows import (
    NO,
    YES,
    Asked,
    Kinds,
    ObjectName,
    ask_another,
    ask_bigger,
    ask_difference,
    ask_more,
    ask_number,
    ask_presence,
    ask_relation,
    ask_shape,
    ask_value,
    draw_subjects,
    pick,
    rows_of,
)
from promptecho.files import write_jsonl
from promptecho.gallery.captions import (
    SAID_SIZES,
    SAID_TEXTURES,
    DenseClaim,
    DenseGroup,
    random_dense_claim,
    write_dense,
)
from promptecho.gallery.posters import Poster, random_poster, write_prompt
from promptecho.shapes.world import COLORS, RELATIONS, SHAPES

SHORT, LONG = 3, 2  # wordings of write_dense
SHORT_POSTER, LONG_POSTER = 0, 1  # wordings of write_prompt
COUNTED: list[tuple[int, ...]] = [(2,), (3,), (4,), (2, 1), (3, 1), (1, 2), (1, 3)]  # objects of each group
UNEVEN: list[tuple[int, ...]] = [(2, 1), (3, 1), (3, 2), (4, 1)]
FEW: list[tuple[int, ...]] = [(1,), (2,), (1, 1)]
PAIR = (1, 1)
LARGE_SMALL = ("large", "small")
DESCRIBED = ("size", "texture", "color")  # in the order in which phrases say them


def _some(words: Collection[str], n: int, rng: np.random.Generator) -> list[str]:
    """`n` different ones."""
    return [str(word) for word in rng.permutation(list(words))[:n]]


def _claim(
    rng: np.random.Generator, counts: tuple[int, ...] = PAIR, *, same_shape: bool = False, color: bool = False,
    texture: bool = False, sizes: tuple[str, ...] = (), relation: bool = False, absent: Collection[str] = (),
) -> DenseClaim:  # fmt: skip
    """Groups of these counts; colours and textures where they are said all differ. `relation`: between the first two;
    `absent`: the vocabulary, SHAPES or COLORS, of which one that no group has must not be there."""
    n = len(counts)
    shapes = _some(SHAPES, 1, rng) * n if same_shape else _some(SHAPES, n, rng)
    nothing: list[str | None] = [None] * n
    colors = _some(COLORS, n, rng) if color else nothing
    textures = _some(SAID_TEXTURES, n, rng) if texture else nothing
    said = zip(counts, shapes, colors, sizes or nothing, textures, strict=True)
    others = [word for word in absent if word not in {*shapes, *colors}]
    return DenseClaim(
        groups=tuple(DenseGroup(*one) for one in said),
        relations=((0, pick(RELATIONS, rng), 1),) if relation else (),
        absent=tuple(_some(others, 1, rng)) if absent else (),
    )


def _two_colors_one_texture(rng: np.random.Generator) -> DenseClaim:
    first, second, third = _claim(rng, (1, 1, 1)).groups
    c, d = _some(COLORS, 2, rng)
    return DenseClaim(
        (
            DenseGroup(1, first.shape, c),
            DenseGroup(1, second.shape, d),
            DenseGroup(1, third.shape, None, None, pick(SAID_TEXTURES, rng)),
        )
    )


def _two_textures_one_color(rng: np.random.Generator) -> DenseClaim:
    first, second = _claim(rng, texture=True).groups
    return DenseClaim((DenseGroup(1, first.shape, pick(list(COLORS), rng), None, first.texture), second))


def _size_or_number(rng: np.random.Generator, color: bool) -> DenseClaim:
    if rng.random() < 0.5:
        return _claim(rng, sizes=LARGE_SMALL, color=color)
    return _claim(rng, pick(UNEVEN, rng), color=color)


def _scene_of_many_clauses(rng: np.random.Generator) -> DenseClaim:
    while (claim := random_dense_claim(rng)).clauses < 3:
        pass
    return claim


def _named(group: DenseGroup, *attributes: str) -> ObjectName:
    """A group by its shape, and by those of these attributes that its phrase says."""
    return ObjectName(group.shape, group.count, tuple(getattr(group, a) for a in attributes if getattr(group, a)))


def _there(claim: DenseClaim, *attributes: str) -> list[Asked]:
    return [ask_presence(_named(group, *attributes)) for group in claim.groups]


def _numbers(claim: DenseClaim) -> list[Asked]:
    return [ask_number(_named(group)) for group in claim.groups]


def _values(claim: DenseClaim, *attributes: str) -> list[Asked]:
    return [
        ask_value(_named(group), getattr(group, attribute), attribute)
        for group in claim.groups
        for attribute in attributes
        if getattr(group, attribute)
    ]


def _relations(claim: DenseClaim, *attributes: str) -> list[Asked]:
    return [
        asked
        for a, direction, b in claim.relations
        for asked in ask_relation(_named(claim.groups[a], *attributes), direction, _named(claim.groups[b], *attributes))
    ]


def _comparison(claim: DenseClaim) -> list[Asked]:
    first, second = claim.groups
    return (ask_bigger if first.size else ask_more)(_named(first), _named(second))


def _absences(claim: DenseClaim) -> list[Asked]:
    return [
        ask_presence(ObjectName("object", said=(name,)) if name in COLORS else ObjectName(name), NO)
        for name in claim.absent
    ]


def _another(claim: DenseClaim) -> Asked:
    return ask_another({group.shape for group in claim.groups})


def _difference(claim: DenseClaim, attribute: str) -> list[Asked]:
    return [*_there(claim, attribute), ask_difference(claim.groups[0].shape, attribute)]


def _shapes_by_color(claim: DenseClaim) -> list[Asked]:
    """The objects of a relation, named by their colours."""
    things = [ObjectName("object", said=(str(group.color),)) for group in claim.groups]
    ((a, direction, b),) = claim.relations
    return [
        *map(ask_presence, things),
        *(ask_shape(thing, group.shape) for thing, group in zip(things, claim.groups, strict=True)),
        *ask_relation(things[a], direction, things[b]),
    ]


def _ask_everything(claim: DenseClaim) -> list[Asked]:
    total = sum(group.count for group in claim.groups)
    return [
        *_there(claim), *_numbers(claim), *_values(claim, *DESCRIBED), *_relations(claim), *_absences(claim),
        (f"Is the number of objects {total}?", YES),
    ]  # fmt: skip


def _texts(poster: Poster) -> list[Asked]:
    return [(f"Is the text '{word}' in the image?", YES) for word in dict.fromkeys(word for _, word in poster.texts)]


KINDS: Kinds = {
    "shape+color": (
        lambda rng: _claim(rng, color=True),
        lambda claim: [*_there(claim), *_values(claim, "color"), _another(claim)],
    ),
    "color+texture": (
        _two_colors_one_texture,
        lambda claim: [*_there(claim), *_values(claim, "color", "texture")],
    ),
    "texture+color": (
        _two_textures_one_color,
        lambda claim: [*_there(claim), *_values(claim, "texture", "color")],
    ),
    "shape+texture": (
        lambda rng: _claim(rng, texture=True),
        lambda claim: [*_there(claim), *_values(claim, "texture"), _another(claim)],
    ),
    "2d_spatial_relation": (
        lambda rng: _claim(rng, relation=True),
        lambda claim: [*_there(claim), *_relations(claim)],
    ),
    "numeracy": (
        lambda rng: _claim(rng, pick(COUNTED, rng)),
        lambda claim: [*_there(claim), *_numbers(claim), _another(claim)],
    ),
    "negation": (
        lambda rng: _claim(rng, pick(FEW, rng), absent=SHAPES),
        lambda claim: [*_there(claim), *_absences(claim)],
    ),
    "differentiation": (
        lambda rng: _claim(rng, same_shape=True, sizes=tuple(_some(SAID_SIZES, 2, rng))),
        lambda claim: _difference(claim, "size"),
    ),
    "comparison": (
        lambda rng: _size_or_number(rng, color=False),
        lambda claim: [*_there(claim), *_comparison(claim)],
    ),
    "color+2d": (
        lambda rng: _claim(rng, color=True, relation=True),
        lambda claim: [*_there(claim), *_relations(claim), *_values(claim, "color")],
    ),
    "shape+2d": (lambda rng: _claim(rng, color=True, relation=True), _shapes_by_color),
    "texture+2d": (
        lambda rng: _claim(rng, texture=True, relation=True),
        lambda claim: [*_there(claim), *_relations(claim), *_values(claim, "texture")],
    ),
    "numeracy+color": (
        lambda rng: _claim(rng, pick(COUNTED, rng), color=True),
        lambda claim: [*_there(claim), *_numbers(claim), *_values(claim, "color")],
    ),
    "numeracy+texture": (
        lambda rng: _claim(rng, pick(COUNTED, rng), texture=True),
        lambda claim: [*_there(claim), *_numbers(claim), *_values(claim, "texture")],
    ),
    "comparison+color": (
        lambda rng: _size_or_number(rng, color=True),
        lambda claim: [*_there(claim), *_comparison(claim), *_values(claim, "color")],
    ),
    "comparison+texture": (
        lambda rng: _claim(rng, pick(UNEVEN, rng), texture=True),
        lambda claim: [*_there(claim), *_comparison(claim), *_values(claim, "texture")],
    ),
    "differentiation+color": (
        lambda rng: _claim(rng, same_shape=True, color=True),
        lambda claim: _difference(claim, "color"),
    ),
    "differentiation+texture": (
        lambda rng: _claim(rng, same_shape=True, texture=True),
        lambda claim: _difference(claim, "texture"),
    ),
    "negation+color": (
        lambda rng: _claim(rng, pick(FEW, rng), color=True, absent=COLORS),
        lambda claim: [*_there(claim), *_values(claim, "color"), *_absences(claim)],
    ),
    "negation+texture": (
        lambda rng: _claim(rng, pick(FEW, rng), texture=True, absent=SHAPES),
        lambda claim: [*_there(claim), *_values(claim, "texture"), *_absences(claim)],
    ),
    "numeracy+2d": (
        lambda rng: _claim(rng, (1, 1, pick((2, 3), rng)), relation=True),
        lambda claim: [*_there(claim), *_numbers(claim), *_relations(claim)],
    ),
    "comparison+2d": (
        lambda rng: _claim(rng, sizes=LARGE_SMALL, relation=True),
        lambda claim: [*_there(claim), *_comparison(claim), *_relations(claim)],
    ),
    "differentiation+2d": (
        lambda rng: _claim(rng, same_shape=True, color=True, relation=True),
        lambda claim: [*_there(claim, "color"), *_relations(claim, "color")],
    ),
    "negation+2d": (
        lambda rng: _claim(rng, relation=True, absent=SHAPES),
        lambda claim: [*_there(claim), *_relations(claim), *_absences(claim)],
    ),
    "text": (lambda rng: random_poster(rng, held_out=True), _texts),
    "real_world": (_scene_of_many_clauses, _ask_everything),
}


def describe(subject: DenseClaim | Poster) -> tuple[str, str]:
    """The short and the long description."""
    if isinstance(subject, Poster):
        return write_prompt(subject, SHORT_POSTER), write_prompt(subject, LONG_POSTER)
    return write_dense(subject, SHORT), write_dense(subject, LONG)


def tiif_prompts(per_attribute: int, seed: int) -> list[dict[str, Any]]:
    """The prompts in the packed format (benchmarks.tiif.prompts); the same seed gives the same prompts.

    Raises:
        DataError: `per_attribute` is not positive.
    """
    return rows_of(draw_subjects(KINDS, per_attribute, seed, "tiif gallery"), KINDS, describe)


def write_tiif_prompts(per_attribute: int, seed: int, out: Path) -> int:
    """Write the prompts as one packed file; returns how many rows, each of which is two prompts."""
    rows = tiif_prompts(per_attribute, seed)
    write_jsonl(out, rows)
    return len(rows)
