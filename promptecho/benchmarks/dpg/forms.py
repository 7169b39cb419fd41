"""The questions that embedded worlds ask about objects (prompt_rows.py), and what answers each."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from promptecho.errors import DataError
from promptecho.shapes.grammar import LONG_RELATION, plural
from promptecho.shapes.world import NUMBERS, SHAPES

if TYPE_CHECKING:
    from PIL import Image

Predicate = Callable[[list[Any]], bool]  # of all objects found in an image
Form = tuple[str, Callable[..., Predicate]]  # a pattern of questions, and of its groups what answers them
RELATIONS = {words: relation for relation, words in LONG_RELATION.items()}


def object_forms(
    those: Callable[[list[Any], str], list[Any]],
    attributes: Mapping[str, Callable[[Any], str]],
    lies: Callable[[list[Any], str, str, str], bool],
) -> list[Form]:
    """Forms of questions about presence, number, attributes, relation, and the number of objects in all.

    Args:
        those: the objects of a shape among those found.
        attributes: by each word that may be said of an object, what it is of an object. Said of several alike, the
            word must hold for all.
        lies: whether a shape lies in a direction as seen from another shape: (found, shape, direction, shape).
    """
    names = {name: shape for shape in SHAPES for name in (shape, plural(shape))}
    name, value, number, where = ("|".join(words) for words in (names, attributes, NUMBERS, RELATIONS))
    return [
        (rf"(?:is there an?|are there) ({name})", lambda a: lambda found: bool(those(found, names[a]))),
        (
            rf"(?:is|are) the ({name}) ({value})",
            lambda a, v: lambda found: {attributes[v](one) for one in those(found, names[a])} == {v},
        ),
        (
            rf"are there exactly ({number}) ({name})",
            lambda n, a: lambda found: len(those(found, names[a])) == NUMBERS.index(n),
        ),
        (
            rf"(?:is|are) the ({name}) ({where}) the ({name})",
            lambda a, r, b: lambda found: lies(found, names[a], RELATIONS[r], names[b]),
        ),
        (rf"does the image show exactly ({number}) objects?", lambda n: lambda found: len(found) == NUMBERS.index(n)),
    ]


@dataclass(frozen=True)
class WorldVqa:
    """`Vqa` of an embedded world: answers "yes" or "no" from the objects that its oracle finds in an image.

    Args:
        name: as score files call it.
        backend: as configurations call it.
        about: what its questions are about, for errors.
        look: finds all objects of an image.
        forms: its questions, and what answers each.
    """

    name: str
    backend: str
    about: str
    look: Callable[[Image.Image], list[Any]]
    forms: Sequence[Form]

    def read(self, question: str) -> Predicate:
        """What answers a question.

        Raises:
            DataError: it is of no form.
        """
        text = " ".join(question.split()).removesuffix("?").lower()
        for pattern, answer in self.forms:
            if match := re.fullmatch(pattern, text):
                return answer(*match.groups())
        raise DataError(
            f"backend {self.backend}: the question {question!r} is not one about {self.about}; use backend mplug or "
            "judge for real images"
        )

    def answers(self, image: Image.Image, questions: Sequence[str]) -> list[str]:
        """Raises:
        DataError: as read.
        """
        asked = [self.read(question) for question in questions]
        found = self.look(image)
        return ["yes" if answer(found) else "no" for answer in asked]
