"""Captions in plain English: writing what a scene shows, and reading a caption back into what it claims.

A caption is one clause in one of several wordings. Groups of equal objects are counted; two single objects are
told with their relation or joined by "and". `parse` inverts every wording, so that any prompt of this language
can be judged by the oracle.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from promptecho.errors import DataError
from promptecho.shapes.world import (
    COLORS,
    KINDS,
    NUMBERS,
    OPPOSITE,
    RELATIONS,
    SHAPES,
    Scene,
    different_kind,
    place,
    random_kind,
    relation,
)

PREFIXES = ("", "There {be} ", "The image shows ")
PHOTO = "a photo of "
LONG_RELATION = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}
SHORT_RELATION = {"left": "left of", "right": "right of", "above": "above", "below": "below"}
EMPTY = "An empty image."
MIDDLE = (26, 38)  # pixels of the 64 that count as neither left nor right, neither above nor below


@dataclass(frozen=True)
class Group:
    """`count` objects of one shape; `color` None when the caption does not say."""

    count: int
    shape: str
    color: str | None


@dataclass(frozen=True)
class Claim:
    """What a caption says: groups, and for two single objects where the first lies as seen from the second."""

    groups: tuple[Group, ...]
    relation: str | None = None

    @property
    def kind(self) -> str:
        if self.relation:
            return "relation"
        if len(self.groups) == 1:
            return "single" if self.groups[0].count == 1 else "count"
        return "pair"


def plural(shape: str) -> str:
    return "crosses" if shape == "cross" else shape + "s"


_SINGULAR = {plural(shape): shape for shape in SHAPES}


def phrase(group: Group) -> str:
    """'a red circle', 'three circles'."""
    color = f"{group.color} " if group.color else ""
    if group.count == 1:
        return f"a {color}{group.shape}"
    return f"{NUMBERS[group.count]} {color}{plural(group.shape)}"


def write(claim: Claim, wording: int) -> str:
    """The caption of a claim. `wording` 0-2: sentences; 3: the short 'a photo of ...' without a full stop."""
    if not claim.groups:
        return EMPTY
    phrases = [phrase(group) for group in claim.groups]
    if claim.relation:
        words = SHORT_RELATION if wording == 3 else LONG_RELATION
        body = f"{phrases[0]} {words[claim.relation]} {phrases[1]}"
    elif len(phrases) == 1:
        body = phrases[0]
    else:
        body = ", ".join(phrases[:-1]) + " and " + phrases[-1]
    if wording == 3:
        return PHOTO + body
    text = PREFIXES[wording].format(be="is" if claim.groups[0].count == 1 else "are") + body
    return text[0].upper() + text[1:] + "."


def write_places(scene: Scene, rng: np.random.Generator) -> str:
    """Every object of a scene with its place in the picture, in random order: 'A red circle above left, a ...'.

    The middle of the picture has no word. It is the answer to the second question that the VLM is trained on.
    """
    things = list(scene.things)
    rng.shuffle(things)
    parts = []
    for thing in things:
        words = [f"a {thing.color} {thing.shape}"]
        words += ["above"] if thing.y < MIDDLE[0] else ["below"] if thing.y > MIDDLE[1] else []
        words += ["left"] if thing.x < MIDDLE[0] else ["right"] if thing.x > MIDDLE[1] else []
        parts.append(" ".join(words))
    text = ", ".join(parts) + "."
    return text[0].upper() + text[1:]


_PHRASE = re.compile(
    rf"(?P<number>an?|{'|'.join(NUMBERS[2:])}) (?:(?P<color>{'|'.join(COLORS)}) )?"
    rf"(?P<shape>{'|'.join([*_SINGULAR, *SHAPES])})"
)
_RELATION = re.compile(r"^(?P<first>.+?) (?P<words>(?:to the )?(?:left|right) of|above|below) (?P<second>.+)$")


def _parse_phrase(text: str, caption: str) -> Group:
    match = _PHRASE.fullmatch(text)
    if match is None:
        raise DataError(f"caption {caption!r}: {text!r} is not a phrase of the shapes language")
    count = 1 if match["number"] in ("a", "an") else NUMBERS.index(match["number"])
    return Group(count, _SINGULAR.get(match["shape"], match["shape"]), match["color"])


def parse(caption: str) -> Claim:
    """Read a caption back.

    Raises:
        DataError: the caption is not in the language (a model may write anything); names caption and phrase.
    """
    text = " ".join(caption.split()).rstrip(".").lower()
    if text == EMPTY.rstrip(".").lower():
        return Claim(())
    for prefix in (PHOTO, "there is ", "there are ", "the image shows "):
        text = text.removeprefix(prefix)
    match = _RELATION.match(text)
    if match:
        word = next(word for word in RELATIONS if word in match["words"].split())
        groups = (_parse_phrase(match["first"], caption), _parse_phrase(match["second"], caption))
        return Claim(groups, word)
    return Claim(tuple(_parse_phrase(part, caption) for part in re.split(r", | and ", text)))


def random_claim(rng: np.random.Generator, kind: str | None = None, colors: bool = True) -> Claim:
    """A claim of the prompt world, of one of the four `KINDS`; without `colors` no phrase names one."""
    kind = kind or str(rng.choice(KINDS, p=[0.2, 0.25, 0.3, 0.25]))
    first = random_kind(rng)
    second = different_kind(first, rng)
    count = int(rng.integers(2, 5)) if kind == "count" else 1
    groups = [Group(count, first[0], first[1] if colors else None)]
    if kind in ("relation", "pair"):
        groups.append(Group(1, second[0], second[1] if colors else None))
    return Claim(tuple(groups), str(rng.choice(RELATIONS)) if kind == "relation" else None)


def scene_of(claim: Claim, rng: np.random.Generator) -> Scene:
    """A scene that fulfils a claim exactly; colours that the claim leaves open are drawn."""
    kinds = []
    for group in claim.groups:
        color = group.color or str(rng.choice(list(COLORS)))
        kinds += [(group.shape, color)] * group.count
    return place(kinds, rng, claim.relation)


def describe(scene: Scene, rng: np.random.Generator) -> Claim:
    """A true and complete claim about any scene; the order of groups is drawn."""
    things = list(scene.things)
    if len(things) == 2 and (things[0].shape, things[0].color) != (things[1].shape, things[1].color):
        first, second = (0, 1) if rng.random() < 0.5 else (1, 0)
        where = relation(things[first], things[second])
        groups = tuple(Group(1, things[i].shape, things[i].color) for i in (first, second))
        return Claim(groups, where if where and rng.random() < 0.75 else None)
    counts = Counter((thing.shape, thing.color) for thing in things)
    kinds = list(counts)
    rng.shuffle(kinds)
    return Claim(tuple(Group(counts[shape, color], str(shape), str(color)) for shape, color in kinds))


def wrong_fact(claim: Claim, wrong: Claim) -> str:
    """Which fact `corrupt` changed: relation, count, shape, color or swap."""
    pairs = list(zip(claim.groups, wrong.groups, strict=True))
    if claim.relation != wrong.relation:
        return "relation"
    if any(a.count != b.count for a, b in pairs):
        return "count"
    if any(a.shape != b.shape for a, b in pairs):
        return "shape"
    return "swap" if sum(a.color != b.color for a, b in pairs) == 2 else "color"


def corrupt(claim: Claim, rng: np.random.Generator) -> Claim:
    """The same claim with exactly one fact wrong: a colour, a shape, a count, the relation, or two colours swapped."""
    groups = list(claim.groups)
    index = int(rng.integers(len(groups)))
    group = groups[index]
    options = ["shape"]
    if group.color:
        options.append("color")
    if claim.kind == "count":
        options += ["count", "count"]
    if claim.relation:
        options += ["relation", "relation"]
    if len(groups) == 2 and groups[0].color and groups[1].color and groups[0].color != groups[1].color:
        options += ["swap", "swap"]
    what = str(rng.choice(options))
    if what == "relation" and claim.relation:
        return Claim(claim.groups, OPPOSITE[claim.relation])
    if what == "swap":
        a, b = groups
        return Claim((Group(a.count, a.shape, b.color), Group(b.count, b.shape, a.color)), claim.relation)
    if what == "count":
        count = int(rng.choice([n for n in (2, 3, 4) if n != group.count]))
        groups[index] = Group(count, group.shape, group.color)
    elif what == "color":
        groups[index] = Group(group.count, group.shape, str(rng.choice([c for c in COLORS if c != group.color])))
    else:
        taken = {g.shape for g in groups}
        groups[index] = Group(group.count, str(rng.choice([s for s in SHAPES if s not in taken])), group.color)
    return Claim(tuple(groups), claim.relation)
