"""Posters: a coloured ground and one to three words in four roles, their prompts, and their labels as JSON.

The roles are those of the paper's appendix B.1. Each has a size and a place, so that an image alone says them:
the main title is twice as high as all else and at the top, the subtitle stands under it, selling points carry a
bullet, other text stands at the bottom. Every glyph fills one cell of a grid of 8x8 pixels.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import numpy as np

from promptecho.errors import DataError
from promptecho.gallery.glyphs import ALPHABET
from promptecho.gallery.words import LONGEST, is_held_out, random_word

ROLES = ("main_title", "subtitle", "selling_points", "other_text")
GROUNDS = {  # name: colours of ground and text
    "red": ((200, 40, 40), (250, 250, 250)),
    "green": ((36, 130, 60), (250, 250, 250)),
    "blue": ((40, 70, 190), (250, 250, 250)),
    "purple": ((120, 50, 160), (250, 250, 250)),
    "yellow": ((244, 210, 60), (20, 20, 24)),
    "white": ((244, 244, 244), (20, 20, 24)),
}
SLOTS = (("main_title", 1), ("subtitle", 3), ("selling_points", 5), ("selling_points", 6), ("other_text", 7))
_SAID = {"main_title": "title", "subtitle": "subtitle", "selling_points": "selling point", "other_text": "note"}
_ROLE = {said: role for role, said in _SAID.items()}
_OPENINGS = ("A {ground} poster with ", "The image shows a {ground} poster with ", "A poster on {ground} ground with ")
READ_QUERY = "Read the text of this poster."


@dataclass(frozen=True)
class Poster:
    """The colour of the ground and (role, word) of each text, from top to bottom."""

    ground: str
    texts: tuple[tuple[str, str], ...]


def slots_of(poster: Poster) -> list[int]:
    """For each text, which of `SLOTS` it stands in."""
    taken: list[int] = []
    for role, _ in poster.texts:
        taken.append(next(i for i, (name, _) in enumerate(SLOTS) if name == role and i not in taken))
    return taken


def random_poster(
    rng: np.random.Generator, held_out: bool = False, spelled_freely: bool = False, count: int | None = None
) -> Poster:
    """One to three texts, or `count`; nine in ten posters have a main title. All words are held out, or none is."""
    count = count or int(rng.choice([1, 2, 3], p=[0.4, 0.35, 0.25]))
    others = list(rng.permutation([1, 2, 3, 4]))
    slots = sorted([0, *others[: count - 1]] if rng.random() < 0.9 else others[:count])
    if 3 in slots and 2 not in slots:  # the first selling point stands in the upper of its two places
        slots[slots.index(3)] = 2
    texts = tuple((SLOTS[slot][0], random_word(rng, held_out, spelled_freely)) for slot in slots)
    return Poster(str(rng.choice(list(GROUNDS))), texts)


def write_prompt(poster: Poster, wording: int) -> str:
    """The prompt that asks for a poster, in one of three wordings: `A red poster with the title "MOKA".`"""
    parts = [f'the {_SAID[role]} "{word}"' for role, word in poster.texts]
    listed = ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0]
    return _OPENINGS[wording].format(ground=poster.ground) + listed + "."


def write_label(poster: Poster) -> str:
    """The texts as JSON with the four roles as keys, each a list in reading order: what a reader should answer."""
    return json.dumps({role: [word for name, word in poster.texts if name == role] for role in ROLES})


_OPENING = re.compile(
    rf"(?:A|The image shows a) (?P<a>{'|'.join(GROUNDS)}) poster with |"
    rf"A poster on (?P<b>{'|'.join(GROUNDS)}) ground with "
)
_TEXT = re.compile(rf'the (?P<said>{"|".join(_ROLE)}) "(?P<word>[{ALPHABET}]{{1,{LONGEST}}})"')


def is_poster_prompt(prompt: str) -> bool:
    return _OPENING.match(prompt) is not None


def parse_prompt(prompt: str) -> Poster:
    """Read a poster's prompt back.

    Raises:
        DataError: it is none; names the prompt.
    """
    opening = _OPENING.match(prompt)
    body = prompt[opening.end() :].removesuffix(".") if opening else ""
    found = [_TEXT.fullmatch(part) for part in re.split(r", | and ", body)]
    if opening is None or not all(found):
        raise DataError(f"prompt {prompt!r} asks for no poster of the gallery; see docs/shapes.md")
    texts = tuple((_ROLE[match["said"]], match["word"]) for match in found if match)
    return Poster(opening["a"] or opening["b"], texts)


def texts_of_label(label: str) -> tuple[tuple[str, str], ...]:
    """(role, word) of a label's texts, in the order of the roles.

    Raises:
        DataError: it is not JSON of the four roles; names the text.
    """
    try:
        found = json.loads(label)
        return tuple((role, str(word)) for role in ROLES for word in found[role])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"label {label!r} is not JSON with the lists {', '.join(ROLES)}") from error


def misspell(poster: Poster, rng: np.random.Generator) -> Poster:
    """The same poster with one character of one word changed, a digit into a digit where that can be; the word stays on
    its side of `is_held_out`, unless none of its neighbours lies there."""
    changes = [
        (character.isdigit() == word[place].isdigit(), index, word[:place] + character + word[place + 1 :])
        for index, (_, word) in enumerate(poster.texts)
        for place in range(len(word))
        for character in ALPHABET
        if character != word[place]
    ]
    words = [word for _, word in poster.texts]
    same_side = [one for one in changes if is_held_out(one[2]) == is_held_out(words[one[1]])]
    found = [one for one in same_side if one[0]] or same_side or changes
    _, index, changed = found[int(rng.integers(len(found)))]
    texts = list(poster.texts)
    texts[index] = (texts[index][0], changed)
    return Poster(poster.ground, tuple(texts))
