"""Prompts and questions that embedded worlds write for themselves, as rows of the packed format (prompts.py)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from promptecho.errors import DataError
from promptecho.seeds import derive_seed
from promptecho.shapes.grammar import LONG_RELATION, plural
from promptecho.shapes.world import OPPOSITE, SHAPES

YES, NO = "yes", "no"
Asked = tuple[str, str]  # question, expected answer
# Attribute -> how to draw what a prompt asks for, and the questions about that.
Kinds = Mapping[str, tuple[Callable[[np.random.Generator], Any], Callable[[Any], list[Asked]]]]
Subjects = list[tuple[str, Any]]  # attribute, and what the prompt asks for
Option = TypeVar("Option")


def pick(options: Sequence[Option], rng: np.random.Generator) -> Option:
    return options[int(rng.integers(len(options)))]


@dataclass(frozen=True)
class ObjectName:
    """How questions name `count` objects: by a noun, and what is said of them before it."""

    noun: str
    count: int = 1
    said: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((*self.said, self.noun if self.count == 1 else plural(self.noun)))

    @property
    def many(self) -> str:
        """The name where it stands for any number: "red circles"."""
        return str(ObjectName(self.noun, 2, self.said))

    @property
    def be(self) -> str:
        return "Is" if self.count == 1 else "Are"


def ask_presence(what: ObjectName, expected: str = YES) -> Asked:
    article = "Is there a" if what.count == 1 else "Are there"
    return f"{article} {what} in the image?", expected


def ask_number(what: ObjectName) -> Asked:
    return f"Is the number of {what.many} {what.count}?", YES


def ask_value(what: ObjectName, value: str, attribute: str) -> Asked:
    return f"{what.be} the {what} {value} in {attribute}?", YES


def ask_shape(what: ObjectName, shape: str) -> Asked:
    return f"{what.be} the {what} in the shape of a {shape}?", YES


def ask_relation(first: ObjectName, direction: str, second: ObjectName) -> list[Asked]:
    """The relation and its opposite."""
    return [
        (f"{first.be} the {first} {LONG_RELATION[word]} the {second}?", expected)
        for word, expected in ((direction, YES), (OPPOSITE[direction], NO))
    ]


def ask_more(first: ObjectName, second: ObjectName) -> list[Asked]:
    """Whether there are more of the first, and whether there are more of the second."""
    return [
        (f"Are there more {a.many} than {b.many} in the image?", expected)
        for a, b, expected in ((first, second, YES), (second, first, NO))
    ]


def ask_bigger(first: ObjectName, second: ObjectName) -> list[Asked]:
    """Whether the first is bigger, and whether the second is."""
    return [
        (f"{a.be} the {a} bigger than the {b}?", expected)
        for a, b, expected in ((first, second, YES), (second, first, NO))
    ]


def ask_difference(noun: str, attribute: str) -> Asked:
    return f"Are there two {plural(noun)} of different {attribute}s in the image?", YES


def ask_another(shapes: Collection[str]) -> Asked:
    """A shape that is none of `shapes`: the first in the vocabulary's order after them."""
    last = max(SHAPES.index(shape) for shape in shapes)
    another = next(name for name in [*SHAPES[last + 1 :], *SHAPES] if name not in shapes)
    return ask_presence(ObjectName(another), NO)


def draw_subjects(kinds: Kinds, per_attribute: int, seed: int, purpose: str) -> Subjects:
    """Up to `per_attribute` different subjects of each attribute; fewer where the vocabulary has no more.

    Args:
        purpose: what the draws are for, so that no other prompts come from the same numbers.

    Raises:
        DataError: `per_attribute` is not positive.
    """
    if per_attribute < 1:
        raise DataError(f"TIIF prompts over an embedded world: {per_attribute} of each attribute; ask for 1 or more")
    drawn: Subjects = []
    for attribute, (draw, _) in kinds.items():
        rng = np.random.default_rng(derive_seed(seed, purpose, attribute))
        subjects: dict[Any, None] = {}
        for _ in range(per_attribute * 50 + 1000):  # enough to come across all of a small vocabulary
            if len(subjects) == per_attribute:
                break
            subjects[draw(rng)] = None
        drawn += [(attribute, subject) for subject in subjects]
    return drawn


def rows_of(subjects: Subjects, kinds: Kinds, describe: Callable[[Any], tuple[str, str]]) -> list[dict[str, Any]]:
    """The prompts in the packed format. `describe` gives the short and the long description of a subject."""
    rows: list[dict[str, Any]] = []
    indices: dict[str, int] = {}
    for attribute, subject in subjects:
        asked = kinds[attribute][1](subject)
        short, long = describe(subject)
        rows.append(
            {
                "type": attribute,
                "index": indices.setdefault(attribute, 0),
                "short_description": short,
                "long_description": long,
                "questions": [question for question, _ in asked],
                "answers": [expected for _, expected in asked],
            }
        )
        indices[attribute] += 1
    return rows
