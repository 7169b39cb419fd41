"""Answers to the questions that shapes.py writes, read from the pixels of the embedded world.

The oracle knows one answer, so that a probability is 1 or 0. Said of several alike, a colour or place must hold for
all. A broken object is none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from promptecho.errors import DataError
from promptecho.shapes.grammar import LONG_RELATION, plural
from promptecho.shapes.world import COLORS, NUMBERS, SHAPES

if TYPE_CHECKING:
    from PIL import Image

    from promptecho.benchmarks.geneval2.prompts import PromptAtom
    from promptecho.shapes.oracle import DetectedShape

_NAMES = {name: shape for shape in SHAPES for name in (shape, plural(shape))}
_RELATIONS = {words: relation for relation, words in LONG_RELATION.items()}
_ONE, _COLOR, _WHERE = ("|".join(words) for words in (_NAMES, COLORS, _RELATIONS))
COUNT = re.compile(rf"How many ({_ONE}) are in the image\?")
THERE = re.compile(rf"Are there any ({_ONE}) in the image\?")
IS_OF_COLOR = re.compile(rf"(?:Is|Are) the ({_ONE}) ({_COLOR})\?")
LIES = re.compile(rf"(?:Is|Are) the ({_ONE}) ({_WHERE}) the ({_ONE})\?")


def answer(found: list[DetectedShape], question: str) -> str:
    """A number as a word, or `yes` or `no`.

    Raises:
        DataError: the question is not one of shapes.py.
    """
    from promptecho.shapes.oracle import WELL_FORMED, directions

    def those(name: str) -> list[DetectedShape]:
        return [one for one in found if one.shape == _NAMES[name] and one.score >= WELL_FORMED]

    if match := COUNT.fullmatch(question):
        count = len(those(match[1]))
        return NUMBERS[count] if count < len(NUMBERS) else str(count)
    if match := THERE.fullmatch(question):
        return _yes(bool(those(match[1])))
    if match := IS_OF_COLOR.fullmatch(question):
        return _yes({one.color for one in those(match[1])} == {match[2]})
    if match := LIES.fullmatch(question):
        pairs = [(a, b) for a in those(match[1]) for b in those(match[3]) if a is not b]
        return _yes(bool(pairs) and all(_RELATIONS[match[2]] in directions(a, b) for a, b in pairs))
    raise DataError(
        f"backend oracle: the question {question!r} is not one about shapes (promptecho shapes geneval2 writes them); "
        "use backend vlm for real images"
    )


def _yes(true: bool) -> str:
    return "yes" if true else "no"


class AtomOracle:
    """`AtomJudge` of the shapes world."""

    name = "oracle"

    def probabilities(self, image: Image.Image, atoms: Sequence[PromptAtom]) -> list[float]:
        """Raises:
        DataError: as `answer`.
        """
        from promptecho.shapes.oracle import detect

        found = detect(image)
        return [float(answer(found, atom.question) == atom.answer.lower()) for atom in atoms]
