"""Captions of gallery scenes: one to four clauses in plain English, written, read back, and made wrong in one fact.

A caption lists groups of equal objects, each with its count, size, texture, colour and shape; says where objects lie
as seen from others; and says what is not there. What it does not say is ordinary: of any size, of one plain colour.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from promptecho.errors import DataError
from promptecho.gallery.scenes import Appearance, DenseScene, place_looks, where
from promptecho.shapes.grammar import EMPTY, LONG_RELATION, PHOTO, SHORT_RELATION, plural, write_places
from promptecho.shapes.world import COLORS, NUMBERS, OPPOSITE, RELATIONS, SHAPES, Scene, Thing

SAID_SIZES, SAID_TEXTURES = ("small", "large"), ("striped", "dotted")
FACTS = ("object", "color", "count", *RELATIONS, "swap", "missing", "size", "texture", "negation")
WORDINGS = 4


@dataclass(frozen=True)
class DenseGroup:
    """`count` objects that look alike; colour, size and texture are None where the caption does not say."""

    count: int
    shape: str
    color: str | None
    size: str | None = None
    texture: str | None = None


@dataclass(frozen=True)
class DenseClaim:
    """What a caption says.

    `relations` are (index of a group, direction, index of a group): the first lies there as seen from the second,
    and both are single objects. `absent` are shapes and colours of which there is nothing.
    """

    groups: tuple[DenseGroup, ...]
    relations: tuple[tuple[int, str, int], ...] = ()
    absent: tuple[str, ...] = ()

    @property
    def clauses(self) -> int:
        return len(self.groups) + len(self.relations) + len(self.absent)


def _phrase(group: DenseGroup) -> str:
    words = [word for word in (group.size, group.texture, group.color) if word]
    if group.count == 1:
        return " ".join(["a", *words, group.shape])
    return " ".join([NUMBERS[group.count], *words, plural(group.shape)])


def _reference(group: DenseGroup) -> str:
    return " ".join(["the", *([group.color] if group.color else []), group.shape])


def _absent(name: str) -> str:
    return f"{name} object" if name in COLORS else name


def write_dense(claim: DenseClaim, wording: int) -> str:
    """The caption of a claim, in wording 0, 1 or 2 (sentences) or 3 (`a photo of ...` without a full stop)."""
    if not claim.groups:
        return EMPTY
    phrases = [_phrase(group) for group in claim.groups]
    relations, absent = list(claim.relations), [_absent(name) for name in claim.absent]
    words = SHORT_RELATION if wording == 3 else LONG_RELATION
    if len(phrases) == 2 and relations and relations[0][0] == 0 and wording in (0, 3):
        listing = f"{phrases[0]} {words[relations.pop(0)[1]]} {phrases[1]}"
    else:
        listing = ", ".join(phrases[:-1]) + " and " + phrases[-1] if len(phrases) > 1 else phrases[0]
    is_ = "is " if wording in (0, 2) else ""
    said = [
        f"{_reference(claim.groups[a])} {is_}{words[direction]} {_reference(claim.groups[b])}"
        for a, direction, b in relations
    ]
    if wording == 3:
        return PHOTO + ", ".join([listing, *said, *(f"without a {name}" for name in absent)])
    if wording == 1:
        be = "is" if claim.groups[0].count == 1 else "are"
        more = " and ".join([*said, *(f"no {name}" for name in absent)])
        return f"There {be} {listing}" + (f", with {more}." if more else ".")
    opening = "The image shows " if wording == 2 else ""
    nots = [f"There is no {name}" if wording == 0 else f"No {name} is shown" for name in absent]
    return " ".join(f"{one[0].upper()}{one[1:]}." for one in [opening + listing, *said, *nots])


_COLOR, _SHAPE = "|".join(COLORS), "|".join(SHAPES)
_SINGULAR = {plural(shape): shape for shape in SHAPES}
_GROUP = re.compile(
    rf"(?P<number>an?|{'|'.join(NUMBERS[2:])}) (?:(?P<size>small|large) )?(?:(?P<texture>striped|dotted) )?"
    rf"(?:(?P<color>{_COLOR}) )?(?P<shape>{'|'.join([*_SINGULAR, *SHAPES])})"
)
_WHERE = r"(?P<where>(?:to the )?(?:left|right) of|above|below)"
_RELATION = re.compile(
    rf"(?:\. |, with |, | and )the (?:(?P<ac>{_COLOR}) )?(?P<a>{_SHAPE}) (?:is )?{_WHERE} "
    rf"the (?:(?P<bc>{_COLOR}) )?(?P<b>{_SHAPE})"
)
_INLINE = re.compile(rf"(?P<first>.+?) {_WHERE} (?P<second>.+)")
_NAME = rf"(?P<name>(?:{_COLOR})(?= object)|{_SHAPE})(?: object)?"
_ABSENT = re.compile(
    rf"(?:\. there is no |\. no |, with no | and no |, without an? ){_NAME}(?: is shown)?(?=$|\. | and no |,)"
)


def parse_dense(caption: str) -> DenseClaim:
    """Read a caption back.

    Raises:
        DataError: the caption is not in the language; names the caption and the phrase.
    """
    text = " ".join(caption.split()).removesuffix(".").lower()
    if text == EMPTY.removesuffix(".").lower():
        return DenseClaim(())
    for prefix in (PHOTO, "there is a", "there are ", "the image shows "):
        if text.startswith(prefix):
            text = text.removeprefix(prefix.removesuffix("a") if prefix == "there is a" else prefix)
            break
    absent = tuple(match["name"] for match in _ABSENT.finditer(text))
    text = _ABSENT.sub("", text)
    said = list(_RELATION.finditer(text))
    listing = _RELATION.sub("", text)
    relations = []
    inline = _INLINE.fullmatch(listing)
    if inline:
        relations.append((0, _direction(inline["where"]), 1))
        parts = [inline["first"], inline["second"]]
    else:
        parts = re.split(r", | and ", listing)
    groups = tuple(_parse_group(part, caption) for part in parts)
    for match in said:
        a, b = (_find(groups, match[c], match[s], caption) for c, s in (("ac", "a"), ("bc", "b")))
        relations.append((a, _direction(match["where"]), b))
    return DenseClaim(groups, tuple(relations), absent)


def _direction(words: str) -> str:
    return next(word for word in RELATIONS if word in words.split())


def _parse_group(text: str, caption: str) -> DenseGroup:
    match = _GROUP.fullmatch(text)
    if match is None:
        raise DataError(f"caption {caption!r}: {text!r} is not a phrase of the gallery's language")
    count = 1 if match["number"] in ("a", "an") else NUMBERS.index(match["number"])
    shape = _SINGULAR.get(match["shape"], match["shape"])
    return DenseGroup(count, shape, match["color"], match["size"], match["texture"])


def _find(groups: tuple[DenseGroup, ...], color: str | None, shape: str, caption: str) -> int:
    found = [i for i, g in enumerate(groups) if g.count == 1 and g.shape == shape and g.color == color]
    if len(found) != 1:
        raise DataError(f"caption {caption!r}: 'the {shape}' is not one of the objects that it lists")
    return found[0]


def write_look_places(scene: DenseScene, rng: np.random.Generator) -> str:
    """Every object with its place in the picture, in random order: 'A red circle above left, a ...'."""
    plain = [Thing(t.look.shape, t.look.color, t.x, t.y, t.radius) for t in scene.things]
    return write_places(Scene(tuple(plain)), rng)


# (groups, relations, absent) of claims with one to four clauses, and how often each is drawn.
_FORMS = (
    ((1, 0, 0), 0.2), ((2, 0, 0), 0.17), ((1, 0, 1), 0.08), ((2, 1, 0), 0.22), ((3, 0, 0), 0.08), ((2, 0, 1), 0.05),
    ((3, 1, 0), 0.1), ((2, 1, 1), 0.07), ((3, 0, 1), 0.03),
)  # fmt: skip


def random_dense_claim(rng: np.random.Generator, colors: bool = True) -> DenseClaim:
    """A claim as prompts make it, of one to four clauses; without `colors` no phrase names one.

    Shapes differ between groups. Small objects are plain, and large ones come only among three objects or fewer.
    """
    form = int(rng.choice(len(_FORMS), p=[share for _, share in _FORMS]))
    n, n_relations, n_absent = _FORMS[form][0]
    counts = [1] * n
    if n == 1:
        counts[0] = int(rng.choice([1, 2, 3, 4], p=[0.4, 0.2, 0.2, 0.2]))
    elif not (n == 2 and n_relations) and rng.random() < 0.45:
        counts[-1] = int(rng.integers(2, 4))
    shapes, few = rng.choice(SHAPES, size=n, replace=False), sum(counts) <= 3
    groups = []
    for count, shape in zip(counts, shapes, strict=True):
        size = str(rng.choice(SAID_SIZES if few else SAID_SIZES[:1])) if rng.random() < (0.4 if few else 0.2) else None
        texture = str(rng.choice(SAID_TEXTURES)) if size != "small" and rng.random() < 0.35 else None
        groups.append(DenseGroup(count, str(shape), str(rng.choice(list(COLORS))) if colors else None, size, texture))
    drawn = [(0, str(rng.choice(RELATIONS)), 1)] * n_relations
    absent = (_something_else(tuple(groups), rng),) if n_absent else ()
    order = rng.permutation(n)  # so that the counted group is not always the last
    place_of = {int(old): new for new, old in enumerate(order)}
    relations = tuple((place_of[a], direction, place_of[b]) for a, direction, b in drawn)
    if n == 2:
        relations = tuple(r if r[0] == 0 else (0, OPPOSITE[r[1]], 1) for r in relations)
    return DenseClaim(tuple(groups[i] for i in order), relations, absent)


def _something_else(groups: tuple[DenseGroup, ...], rng: np.random.Generator) -> str:
    """A shape, or where all colours are said a colour, that no group has."""
    names = [shape for shape in SHAPES if shape not in {g.shape for g in groups}]
    if all(g.color for g in groups) and rng.random() < 0.3:
        names = [color for color in COLORS if color not in {g.color for g in groups}]
    return str(rng.choice(names))


def dense_scene_of(claim: DenseClaim, rng: np.random.Generator, attempts: int | None = None) -> DenseScene:
    """A scene that fulfils a claim exactly; a colour that it leaves open is drawn, a size is medium.

    Raises:
        NoRoom: its objects did not fit in `attempts` (`place_looks`).
    """
    looks: list[Appearance] = []
    first: list[int] = []
    for group in claim.groups:
        options = [color for color in COLORS if color not in claim.absent]
        color = group.color or str(rng.choice(options))
        first.append(len(looks))
        looks += [Appearance(group.shape, color, group.size or "medium", group.texture or "plain")] * group.count
    relations = tuple((first[a], direction, first[b]) for a, direction, b in claim.relations)
    return place_looks(looks, rng, relations, attempts)


def describe_dense(scene: DenseScene, rng: np.random.Generator) -> DenseClaim:
    """A true claim that names every object of any scene; order, relations (up to two) and absences are drawn."""
    counts = Counter(thing.look for thing in scene.things)
    looks = list(counts)
    looks = [looks[i] for i in rng.permutation(len(looks))]
    groups = tuple(
        DenseGroup(
            counts[look], look.shape, look.color,
            look.size if look.size in SAID_SIZES else None, look.texture if look.texture in SAID_TEXTURES else None,
        )
        for look in looks
    )  # fmt: skip
    names = Counter((look.color, look.shape) for look in looks)
    alone = [i for i, look in enumerate(looks) if counts[look] == 1 and names[look.color, look.shape] == 1]
    thing_of = {thing.look: thing for thing in scene.things}
    options = []
    for a in alone:
        for b in alone:
            direction = where(thing_of[looks[a]], thing_of[looks[b]])
            if a != b and direction and not (len(groups) == 2 and a):
                options.append((a, direction, b))
    chosen: list[tuple[int, str, int]] = []
    for index in rng.permutation(len(options))[: int(rng.choice(3, p=[0.3, 0.45, 0.25]))]:
        if {options[index][0], options[index][2]} not in [{a, b} for a, _, b in chosen]:
            chosen.append(options[index])
    absent = (
        (_something_else(groups, rng),) if groups and len({g.shape for g in groups}) < 6 and rng.random() < 0.3 else ()
    )
    return DenseClaim(groups, tuple(chosen), absent)


def without_colors(claim: DenseClaim) -> DenseClaim:
    """The same claim without colours; relations whose objects are then not told apart by shape are left out."""
    groups = tuple(replace(group, color=None) for group in claim.groups)
    shapes = Counter(group.shape for group in groups)
    kept = tuple(r for r in claim.relations if shapes[groups[r[0]].shape] == 1 == shapes[groups[r[2]].shape])
    return DenseClaim(groups, kept, tuple(name for name in claim.absent if name in SHAPES))


def wrong_kinds(claim: DenseClaim) -> list[str]:
    """Which of `FACTS` can be made wrong in a claim."""
    kinds = ["object", "texture", "missing"]
    kinds += ["color"] * any(g.color for g in claim.groups)
    related = {i for a, _, b in claim.relations for i in (a, b)}
    kinds += ["count"] * (len(related) < len(claim.groups))
    kinds += sorted({direction for _, direction, _ in claim.relations})
    kinds += ["swap"] * bool(_swaps(claim))
    kinds += ["size"] * any(g.size for g in claim.groups)
    kinds += ["negation"] * bool(claim.absent)
    if len(claim.groups) > 3 or len({g.shape for g in claim.groups}) + len(claim.absent) >= len(SHAPES):
        kinds.remove("missing")
    return [kind for kind in FACTS if kind in kinds]


def _swaps(claim: DenseClaim) -> list[tuple[int, int]]:
    """Pairs of groups whose colours can be exchanged."""
    colored = [(i, group) for i, group in enumerate(claim.groups) if group.color]
    return [(i, j) for i, a in colored for j, b in colored if j < i and a.color != b.color and a.shape != b.shape]


def corrupt_dense(claim: DenseClaim, rng: np.random.Generator, kind: str | None = None) -> DenseClaim:
    """The same claim with exactly one fact wrong, of one of its `wrong_kinds`.

    `missing` names an object that the true claim lacks; left, right, above and below become their opposites.
    """
    kind = kind or str(rng.choice(wrong_kinds(claim)))
    groups = list(claim.groups)
    related = {i for a, _, b in claim.relations for i in (a, b)}
    if kind in RELATIONS:
        options = [i for i, (_, direction, _) in enumerate(claim.relations) if direction == kind]
        chosen = int(rng.choice(options))
        turned = tuple((a, OPPOSITE[d] if i == chosen else d, b) for i, (a, d, b) in enumerate(claim.relations))
        return replace(claim, relations=turned)
    if kind == "negation":
        there = [g.color if claim.absent[0] in COLORS else g.shape for g in groups]
        return replace(claim, absent=(str(rng.choice([name for name in there if name])),))
    if kind == "swap":
        swaps = _swaps(claim)
        i, j = swaps[int(rng.integers(len(swaps)))]
        groups[i], groups[j] = replace(groups[i], color=groups[j].color), replace(groups[j], color=groups[i].color)
        return replace(claim, groups=tuple(groups))
    unused = [shape for shape in SHAPES if shape not in {g.shape for g in groups} | set(claim.absent)]
    if kind == "missing":
        colors = [color for color in COLORS if color not in claim.absent]
        color = str(rng.choice(colors)) if any(g.color for g in groups) else None
        return replace(claim, groups=(*groups, DenseGroup(1, str(rng.choice(unused)), color)))
    options = {
        "object": list(range(len(groups))),
        "texture": list(range(len(groups))),
        "color": [i for i, g in enumerate(groups) if g.color],
        "count": [i for i in range(len(groups)) if i not in related],
        "size": [i for i, g in enumerate(groups) if g.size],
    }[kind]
    index = int(rng.choice(options))
    group = groups[index]
    if kind == "object":
        groups[index] = replace(group, shape=str(rng.choice(unused or [s for s in SHAPES if s != group.shape])))
    elif kind == "texture":
        others: list[str | None] = [t for t in (*SAID_TEXTURES, None) if t != group.texture]
        groups[index] = replace(group, texture=others[int(rng.integers(len(others)))])
    elif kind == "color":
        others = [c for c in COLORS if c != group.color and c not in claim.absent]
        groups[index] = replace(group, color=others[int(rng.integers(len(others)))])
    elif kind == "count":
        groups[index] = replace(group, count=int(rng.choice([n for n in (1, 2, 3, 4) if n != group.count])))
    else:
        groups[index] = replace(group, size="small" if group.size == "large" else "large")
    return replace(claim, groups=tuple(groups))
