"""Captions with one fact changed, by rules: a colour, a number, an object, a relation, two colours swapped, an object
left out, a letter of quoted text.

A rule makes an edit only where it is sure that the new text says something else and is still a sentence. Everything
else is left alone, with the reason, and the audit's page tells how many captions that were.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from promptecho.audit.lexicon import COLORS, NOT_RELATIONS, NUMBERS, OBJECTS, OPPOSITE_RELATIONS, PLURALS

ABSENT = "no such fact"


@dataclass(frozen=True)
class CaptionEdit:
    """A caption with one fact changed."""

    kind: str
    text: str


def _words(words: tuple[str, ...] | list[str]) -> re.Pattern[str]:
    """Whole words in lower case, or with a capital at the caption's start: elsewhere it may begin a name. A hyphen
    makes another word of it."""
    first = "|".join(word.capitalize() for word in words)
    return re.compile(rf"(?:(?<![\w-])(?:{'|'.join(words)})|^(?:{first}))(?![\w-])")


_COLOR, _NUMBER = _words(COLORS), _words(NUMBERS)
_OBJECT = _words([name for row in OBJECTS for name in row])
_RELATION = _words(list(OPPOSITE_RELATIONS))
_QUOTED = re.compile(r'"([^"\n]+)"|“([^”\n]+)”|‘([^’\n]+)’|「([^」\n]+)」')
_LAST = re.compile(r"^(?P<rest>.*\w),? and (?P<dropped>(?:an?|another|\w+) [^,.;:\n]+?)(?P<end>\.?)$")


def _replaced(text: str, match: re.Match[str], word: str) -> str:
    return text[: match.start()] + _as(match[0], word) + text[match.end() :]


def _as(old: str, new: str) -> str:
    """`new`, with a capital where `old` has one."""
    return new.capitalize() if old[0].isupper() else new


def _places(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    """Where a pattern occurs outside of quoted text."""
    quoted = [match.span() for match in _QUOTED.finditer(text)]
    return [one for one in pattern.finditer(text) if not any(a <= one.start() < b for a, b in quoted)]


def _only(pattern: re.Pattern[str], text: str, what: str) -> re.Match[str] | str:
    """The one place of a pattern outside of quoted text, or why there is none that can be changed."""
    places = _places(pattern, text)
    if not places:
        return ABSENT
    return places[0] if len(places) == 1 else f"several {what}"


def color(text: str, rng: np.random.Generator) -> CaptionEdit | str:
    """Another colour, which the caption does not name."""
    places = _places(_COLOR, text)
    if not places:
        return ABSENT
    names = [one[0].lower() for one in places]
    single = [one for one in places if names.count(one[0].lower()) == 1]
    if not single or "black and white" in text:
        return "a colour that is named twice, or black and white"
    place = single[int(rng.integers(len(single)))]
    return CaptionEdit("color", _replaced(text, place, str(rng.choice([name for name in COLORS if name not in names]))))


def count(text: str, rng: np.random.Generator) -> CaptionEdit | str:
    """A number one or two away, before a plural."""
    place = _only(_NUMBER, text, "numbers")
    if isinstance(place, str):
        return place
    if re.match(r"[ -](?:hundred|thousand|million|dozen|percent|of)\b", text[place.end() :]):
        return "a part of a number"
    after = [word.strip(",.;:!?").lower() for word in text[place.end() :].split()[:3]]
    if not any(word in PLURALS or (word.endswith("s") and not word.endswith("ss")) for word in after):
        return "a number without a plural behind it"
    at = NUMBERS.index(place[0].lower())
    others = [NUMBERS[i] for i in range(len(NUMBERS)) if 0 < abs(i - at) <= 2]
    return CaptionEdit("count", _replaced(text, place, str(rng.choice(others))))


def relation(text: str, rng: np.random.Generator) -> CaptionEdit | str:
    """The opposite direction."""
    place = _only(_RELATION, text, "relations")
    if isinstance(place, str):
        return place
    before, after = NOT_RELATIONS
    up_to, on = text[: place.end()].lower(), text[place.start() :].lower()
    if any(up_to.endswith(one) for one in before) or any(on.startswith(one) for one in after):
        return "an idiom"
    if not re.match(r" (?:an?|the|two|three|four|his|her|their|its|another) ", text[place.end() :]):
        return "a relation to nothing that is named"
    return CaptionEdit("relation", _replaced(text, place, OPPOSITE_RELATIONS[place[0].lower()]))


def swap(text: str, rng: np.random.Generator) -> CaptionEdit | str:
    """The colours of two things exchanged."""
    places = _places(_COLOR, text)
    if len(places) < 2:
        return ABSENT
    if len(places) > 2 or places[0][0].lower() == places[1][0].lower():
        return "not two different colours"
    first, second = places
    between = re.findall(r"[a-z]+", text[first.end() : second.start()].lower())
    if len([word for word in between if word not in ("and", "or", "a", "an", "the")]) < 1:
        return "two colours of one thing"
    text = _replaced(text, second, first[0].lower())  # the later place first: the earlier one stays where it is
    return CaptionEdit("swap", _replaced(text, first, second[0].lower()))


def changed_object(text: str, rng: np.random.Generator) -> CaptionEdit | str:
    """Another object of the same kind that takes the same article and that the caption does not name."""
    places = _places(_OBJECT, text)
    if not places:
        return ABSENT
    names = [one[0].lower() for one in places]
    others = {one: _alternatives(one[0].lower(), text) for one in places if names.count(one[0].lower()) == 1}
    possible = [one for one, some in others.items() if some]
    if not possible:
        return "no other object of its kind" if others else "an object that is named twice"
    place = possible[int(rng.integers(len(possible)))]
    return CaptionEdit("object", _replaced(text, place, str(rng.choice(others[place]))))


def _alternatives(name: str, text: str) -> list[str]:
    """Objects of the same kind that the text does not name, with the same article."""
    row = next(row for row in OBJECTS if name in row)
    return [one for one in row if one not in text.lower() and (one[0] in "aeiou") == (name[0] in "aeiou")]


def missing(text: str, rng: np.random.Generator) -> CaptionEdit | str:
    """The last thing of a list left out: '... and a dog.'"""
    match = _LAST.match(text)
    if match is None or not re.match(rf"(?:an?|another|{'|'.join(NUMBERS)}) ", match["dropped"]):
        return ABSENT
    if len(match["dropped"].split()) > 6 or _QUOTED.search(match["dropped"]):
        return "more than a phrase"
    # "A cat between a dog and a horse" would lose its sense.
    if re.search(r"\b(?:between|both)\b", match["rest"].lower()) or match["rest"].count(".") > 1:
        return "a phrase that the rest needs"
    return CaptionEdit("missing", match["rest"] + match["end"])


def letter(text: str, rng: np.random.Generator) -> CaptionEdit | str:
    """One letter of quoted text."""
    places = []
    for match in _QUOTED.finditer(text):
        group = next(number for number in (1, 2, 3, 4) if match[number] is not None)
        places += [match.start(group) + i for i, char in enumerate(match[group]) if char.isascii() and char.isalpha()]
    if not places:
        return "text without Latin letters" if _QUOTED.search(text) else ABSENT
    at = places[int(rng.integers(len(places)))]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1) if chr(code) != text[at].lower()]
    new = str(rng.choice(letters))
    return CaptionEdit("letter", text[:at] + (new.upper() if text[at].isupper() else new) + text[at + 1 :])


RULES: dict[str, Callable[[str, np.random.Generator], CaptionEdit | str]] = {
    "object": changed_object, "color": color, "count": count, "relation": relation, "swap": swap, "missing": missing,
    "letter": letter,
}  # fmt: skip
KINDS = tuple(RULES)
