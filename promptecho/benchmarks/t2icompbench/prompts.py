"""Prompts of T2I-CompBench++: one {prompt, category, ...} a line, with what the category's measure asks for.

- color, shape, texture: `phrases`, the prompt's noun phrases in their order
- spatial: `objects`, two names, and `place` where the prompt's own words for it are not T2I-CompBench++'s
- numeracy: `counts`, pairs of a name in the singular and a number
- non_spatial: nothing more

The published code has spaCy read phrases, objects and counts out of a prompt; here they stand beside it. A prompt has
no id of its own, so its place in the file names it. Beside images the same line has a `data_id`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from promptecho.benchmarks.listing import is_writable, listed_prompt, read_numbered, read_text
from promptecho.benchmarks.t2icompbench.rules import ATTRIBUTES, CATEGORIES, PLACES, asked_phrases, place_of
from promptecho.errors import DataError


@dataclass(frozen=True)
class CompbenchPrompt:
    """One prompt; of `phrases`, `objects` with `place`, and `counts`, those of its category are there."""

    data_id: str
    prompt: str
    category: str
    phrases: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    place: str | None = None
    counts: tuple[tuple[str, int], ...] = ()

    def row(self) -> dict[str, Any]:
        """The line beside an image."""
        row: dict[str, Any] = {"data_id": self.data_id, "prompt": self.prompt, "category": self.category}
        if self.phrases:
            row["phrases"] = list(self.phrases)
        if self.objects:
            row |= {"objects": list(self.objects), "place": self.place}
        if self.counts:
            row["counts"] = [list(pair) for pair in self.counts]
        return row


def tag_of(prompt: CompbenchPrompt) -> str:
    """What a limit draws from in equal parts."""
    return prompt.category


def parse_prompt(row: dict[str, Any], where: str, data_id: str) -> CompbenchPrompt:
    """A line as a prompt.

    Raises:
        DataError: a key is missing or malformed (names `where` and the key).
    """
    prompt, category = read_text(row, "prompt", where), row.get("category")
    if not isinstance(category, str) or category not in CATEGORIES:
        raise DataError(f"{where}: category {category!r}: expected one of {', '.join(CATEGORIES)}")
    if category in ATTRIBUTES:
        phrases = _texts(row, "phrases", where)
        if not asked_phrases(phrases):
            raise DataError(f"{where}: phrases {list(phrases)!r}: none of them is asked about; name a thing")
        return CompbenchPrompt(data_id, prompt, category, phrases)
    if category == "spatial":
        objects, place = _texts(row, "objects", where), row.get("place") or place_of(prompt)
        if len(objects) != 2:
            raise DataError(f"{where}: objects {list(objects)!r}: expected two")
        if place not in PLACES:
            raise DataError(f"{where}: place {place!r}: expected one of {', '.join(PLACES)}")
        return CompbenchPrompt(data_id, prompt, category, objects=objects, place=place)
    if category == "numeracy":
        return CompbenchPrompt(data_id, prompt, category, counts=_counts(row, where))
    return CompbenchPrompt(data_id, prompt, category)


def read_prompts(path: str | Path) -> list[CompbenchPrompt]:
    """Read a prompt set; a prompt's id is its place in the file, from 00000.

    Raises:
        DataError: the file is missing, empty or a line is malformed (names file:line).
    """
    return read_numbered(path, parse_prompt)


parse_listed = partial(listed_prompt, parse_prompt)  # a line beside images and where it stands, as its prompt


def _texts(row: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    texts = row.get(key)
    if not isinstance(texts, list) or not texts:
        raise DataError(f"{where}: {key} is missing or empty; write a list of texts")
    for text in texts:
        if not isinstance(text, str) or not text.strip() or not is_writable(text):
            raise DataError(f"{where}: {key}: {text!r} is no text; correct it")
    return tuple(texts)


def _counts(row: dict[str, Any], where: str) -> tuple[tuple[str, int], ...]:
    pairs = row.get("counts")
    if not isinstance(pairs, list) or not pairs:
        raise DataError(f"{where}: counts is missing or empty; write pairs of a name and a number")
    for pair in pairs:
        fits = isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and pair[0].strip()
        if not fits or type(pair[1]) is not int or pair[1] < 1 or not is_writable(pair[0]):
            raise DataError(f"{where}: counts: {pair!r}: expected a name and a number from 1")
    return tuple((name, count) for name, count in pairs)
