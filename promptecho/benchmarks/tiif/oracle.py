"""Yes/no questions about images of the embedded world, answered from what its oracle finds in them.

A small closed language, worded as TIIF-Bench words its questions; shapes.py beside this writes it. A name is a shape or
`object`, one or many, with a colour or without: "red circle", "squares", "black objects".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product

from promptecho.benchmarks.tiif.prompts import TiifPrompt
from promptecho.errors import DataError
from promptecho.shapes.grammar import LONG_RELATION, plural
from promptecho.shapes.oracle import WELL_FORMED, DetectedShape, directions
from promptecho.shapes.world import COLORS, SHAPES

OBJECT = "object"
_NOUNS = {**{name: shape for shape in SHAPES for name in (shape, plural(shape))}, "object": OBJECT, "objects": OBJECT}
_RELATIONS = {words: name for name, words in LONG_RELATION.items()}
_COLOR = "|".join(COLORS)


def _name(number: str = "") -> str:
    """Pattern of a name; groups `color` and `noun`, with a number where a question has two names."""
    nouns = "|".join(sorted(_NOUNS, key=len, reverse=True))
    return rf"(?:(?P<color{number}>{_COLOR}) )?(?P<noun{number}>{nouns})"


def _named(match: re.Match, objects: list[DetectedShape], number: str = "") -> list[DetectedShape]:
    """The well-formed objects that a name means. A malformed one is an object, and of no shape."""
    color, noun = match[f"color{number}"], _NOUNS[match[f"noun{number}"]]
    return [
        found
        for found in objects
        if color in (None, found.color) and (noun == OBJECT or (found.shape == noun and found.score >= WELL_FORMED))
    ]


def _at_least(count: int) -> Callable[[re.Match, list[DetectedShape]], bool]:
    return lambda match, objects: len(_named(match, objects)) >= count


def _number(match: re.Match, objects: list[DetectedShape]) -> bool:
    return len(_named(match, objects)) == int(match["number"])


def _colored(match: re.Match, objects: list[DetectedShape]) -> bool:
    found = _named(match, objects)
    return bool(found) and all(one.color == match["asked"] for one in found)


def _related(match: re.Match, objects: list[DetectedShape]) -> bool:
    """Every one of the first in that relation to every one of the second, and there are some of both."""
    pairs = list(product(_named(match, objects, "1"), _named(match, objects, "2")))
    return bool(pairs) and all(_RELATIONS[match["relation"]] in directions(a, b) for a, b in pairs)


def _more(match: re.Match, objects: list[DetectedShape]) -> bool:
    return len(_named(match, objects, "1")) > len(_named(match, objects, "2"))


def _different(match: re.Match, objects: list[DetectedShape]) -> bool:
    found = _named(match, objects)
    values = {one.color if match["what"] == "colors" else one.shape for one in found}
    return len(found) == 2 and len(values) == 2


_RULES: list[tuple[re.Pattern, Callable[[re.Match, list[DetectedShape]], bool]]] = [
    (re.compile(rf"Is there an? {_name()} in the image\?"), _at_least(1)),
    (re.compile(rf"Are there {_name()} in the image\?"), _at_least(2)),
    (re.compile(rf"Is the number of {_name()} (?P<number>\d+)\?"), _number),
    (re.compile(rf"(?:Is|Are) the {_name()} (?P<asked>{_COLOR}) in color\?"), _colored),
    (re.compile(rf"(?:Is|Are) the {_name('1')} (?P<relation>{'|'.join(_RELATIONS)}) the {_name('2')}\?"), _related),
    (re.compile(rf"Are there more {_name('1')} than {_name('2')} in the image\?"), _more),
    (re.compile(rf"Are there two {_name()} of different (?P<what>colors|shapes) in the image\?"), _different),
]


def _find(question: str) -> tuple[re.Match, Callable[[re.Match, list[DetectedShape]], bool]] | None:
    for pattern, rule in _RULES:
        if match := pattern.fullmatch(question.strip()):
            return match, rule
    return None


def check_questions(prompt: TiifPrompt) -> None:
    """Refuse prompts of another world: the oracle would find nothing there and answer all the same.

    Raises:
        DataError: a question is not in the language of shapes.
    """
    for question in prompt.questions:
        if _find(question) is None:
            raise DataError(
                f"prompt {prompt.prompt_id}: the oracle does not understand {question!r}; it knows the embedded world "
                "alone (promptecho shapes tiif); use backend judge"
            )


def answer(question: str, objects: list[DetectedShape]) -> str:
    """`yes` or `no`, from all objects of an image.

    Raises:
        DataError: the question is not in the language.
    """
    found = _find(question)
    if found is None:
        raise DataError(f"question {question!r} is not in the language of shapes")
    match, rule = found
    return "yes" if rule(match, objects) else "no"
