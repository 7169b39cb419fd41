"""The yes/no questions that embedded worlds ask about their images (prompt_rows.py), and what answers each.

A small closed language, worded as TIIF-Bench words its questions. A name is a shape or `object`, one or many, with what
is said of it before it or without: "red circle", "squares", "striped black objects".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

from promptecho.benchmarks.tiif.prompts import TiifPrompt
from promptecho.errors import DataError
from promptecho.shapes.grammar import LONG_RELATION, plural
from promptecho.shapes.oracle import directions
from promptecho.shapes.world import SHAPES

if TYPE_CHECKING:
    from PIL import Image

OBJECT = "object"
Rule = tuple[re.Pattern, Callable[[re.Match, Any], bool]]  # a question, and what answers it from what was seen
_NOUNS = {name: noun for noun in (*SHAPES, OBJECT) for name in (noun, plural(noun))}
_RELATIONS = {words: name for name, words in LONG_RELATION.items()}


@dataclass(frozen=True)
class Sight:
    """One way to look at an image, and the questions that are answered from what is then seen."""

    look: Callable[[Image.Image], Any]
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class WorldOracle:
    """What answers questions about images of one embedded world.

    Args:
        name: as score files call it.
        world: the world, for errors.
        command: what writes its prompts, for errors.
        sights: its ways to look at an image.
    """

    name: str
    world: str
    command: str
    sights: tuple[Sight, ...]

    def _find(self, question: str) -> tuple[Sight, Callable[[Any], bool]] | None:
        for sight in self.sights:
            for pattern, rule in sight.rules:
                if match := pattern.fullmatch(question.strip()):
                    return sight, partial(rule, match)
        return None

    def _read(self, question: str) -> tuple[Sight, Callable[[Any], bool]]:
        found = self._find(question)
        if found is None:
            raise DataError(f"question {question!r} is not in the language of {self.world}")
        return found

    def check(self, prompt: TiifPrompt) -> None:
        """Refuse prompts of another world: the oracle would find nothing there and answer all the same.

        Raises:
            DataError: a question is not in the world's language.
        """
        for question in prompt.questions:
            if self._find(question) is None:
                raise DataError(
                    f"prompt {prompt.prompt_id}: the oracle does not understand {question!r}; it knows {self.world} "
                    f"alone ({self.command}); use backend judge"
                )

    def answer(self, question: str, seen: Any) -> str:
        """`yes` or `no`, from what the question's sight sees in an image, such as all of its objects.

        Raises:
            DataError: the question is not in the language.
        """
        return _told(self._read(question)[1](seen))

    def answers(self, image: Image.Image, questions: Sequence[str]) -> list[str]:
        """`yes` or `no` to each question about an image.

        Raises:
            DataError: a question is not in the language.
        """
        asked = [self._read(question) for question in questions]
        seen = {sight: sight.look(image) for sight in dict.fromkeys(sight for sight, _ in asked)}
        return [_told(rule(seen[sight])) for sight, rule in asked]


def _told(answer: bool) -> str:
    return "yes" if answer else "no"


@dataclass(frozen=True)
class _Objects:
    """The objects of an image, as names mean them.

    A malformed object, of a score below `least_score`, is an object and of no shape. Of the others `look_of` tells
    what has the attributes.
    """

    look_of: Callable[[Any], Any]
    least_score: float

    def value(self, one: Any, attribute: str) -> str:
        return getattr(self.look_of(one), attribute)

    def of_shape(self, one: Any, shape: str) -> bool:
        return self.value(one, "shape") == shape and one.score >= self.least_score

    def named(self, match: re.Match, found: list[Any], number: str = "") -> list[Any]:
        """Those that a name means; its groups end in `number` where a question has two names."""
        groups = {key: value for key, value in match.groupdict().items() if value is not None}
        noun = _NOUNS[groups.pop(f"noun{number}")]
        said = {key: value for key, value in groups.items() if key.startswith("said_") and key.endswith(f"_{number}")}
        return [
            one
            for one in found
            if (noun == OBJECT or self.of_shape(one, noun))
            and all(self.value(one, key.split("_")[1]) == value for key, value in said.items())
        ]


def object_rules(
    said: Mapping[str, Iterable[str]], look_of: Callable[[Any], Any], least_score: float, sizes: Sequence[str] = ()
) -> tuple[Rule, ...]:
    """Questions about the objects of an image, which have a `box` and a `score`.

    Args:
        said: the words that may stand before a noun, by the attribute that they are values of, in their order.
        look_of: of an object that was found, what has its `shape` and these attributes.
        least_score: of an object that has a shape.
        sizes: from the least to the largest, where questions compare them.
    """
    objects = _Objects(look_of, least_score)
    named = objects.named
    words = {attribute: "|".join(values) for attribute, values in said.items()}
    nouns = "|".join(sorted(_NOUNS, key=len, reverse=True))

    def name(number: str = "") -> str:
        before = "".join(rf"(?:(?P<said_{attribute}_{number}>{some}) )?" for attribute, some in words.items())
        return rf"{before}(?P<noun{number}>{nouns})"

    def at_least(count: int, match: re.Match, found: list[Any]) -> bool:
        return len(named(match, found)) >= count

    def number_is(match: re.Match, found: list[Any]) -> bool:
        return len(named(match, found)) == int(match["number"])

    def all_are(attribute: str, match: re.Match, found: list[Any]) -> bool:
        those = named(match, found)
        return bool(those) and all(objects.value(one, attribute) == match["asked"] for one in those)

    def all_in_shape(match: re.Match, found: list[Any]) -> bool:
        those = named(match, found)
        return bool(those) and all(objects.of_shape(one, match["asked"]) for one in those)

    def pairs_of(match: re.Match, found: list[Any]) -> list[tuple[Any, Any]]:
        return list(product(named(match, found, "1"), named(match, found, "2")))

    def related(match: re.Match, found: list[Any]) -> bool:
        """Every one of the first in that relation to every one of the second, and there are some of both."""
        pairs = pairs_of(match, found)
        return bool(pairs) and all(_RELATIONS[match["relation"]] in directions(a, b) for a, b in pairs)

    def more(match: re.Match, found: list[Any]) -> bool:
        return len(named(match, found, "1")) > len(named(match, found, "2"))

    def bigger(match: re.Match, found: list[Any]) -> bool:
        """Every one of the first is of a larger size than every one of the second, and there are some of both."""
        pairs = [[sizes.index(objects.value(one, "size")) for one in pair] for pair in pairs_of(match, found)]
        return bool(pairs) and all(a > b for a, b in pairs)

    def different(match: re.Match, found: list[Any]) -> bool:
        those = named(match, found)
        return len(those) == 2 == len({objects.value(one, match["what"]) for one in those})

    rules: list[tuple[str, Callable[[re.Match, Any], bool]]] = [
        (rf"Is there an? {name()} in the image\?", partial(at_least, 1)),
        (rf"Are there {name()} in the image\?", partial(at_least, 2)),
        (rf"Is the number of {name()} (?P<number>\d+)\?", number_is),
        *(
            (rf"(?:Is|Are) the {name()} (?P<asked>{some}) in {attribute}\?", partial(all_are, attribute))
            for attribute, some in words.items()
        ),
        (rf"(?:Is|Are) the {name()} in the shape of an? (?P<asked>{'|'.join(SHAPES)})\?", all_in_shape),
        (rf"(?:Is|Are) the {name('1')} (?P<relation>{'|'.join(_RELATIONS)}) the {name('2')}\?", related),
        (rf"Are there more {name('1')} than {name('2')} in the image\?", more),
        (rf"Are there two {name()} of different (?P<what>{'|'.join(['shape', *words])})s in the image\?", different),
    ]
    if sizes:
        rules.append((rf"(?:Is|Are) the {name('1')} bigger than the {name('2')}\?", bigger))
    return tuple((re.compile(pattern), rule) for pattern, rule in rules)
