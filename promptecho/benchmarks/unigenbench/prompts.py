"""UniGenBench++'s prompts: one row a prompt, as the authors publish them in CSV files.

A row has `index`, and of its language (en or zh) `prompt_en` and `sub_dims_en`: JSON with the theme of the prompt, its
test points by sub-dimension, and of each test point what it means in this prompt. Beside images, each line is the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptecho.benchmarks import listing
from promptecho.benchmarks.listing import is_writable, read_text
from promptecho.benchmarks.unigenbench.dimensions import LANGUAGES, SUBDIMENSIONS, dimension_of
from promptecho.errors import DataError

MOST_POINTS = 32  # of a prompt; the official ones have 1 to 10
MOST_DIGITS = 18  # of an index, after which its images are named
# Language -> keys of `sub_dims`: the theme, the names of the test points, and what they mean in the prompt.
KEYS = {
    "en": ("Primary Categories", "Testpoints", "Testpoint Description"),
    "zh": ("一级垂类", "考点", "考点对应描述"),
}


@dataclass(frozen=True)
class PromptPoint:
    """What an image of a prompt is judged by: the `name` of a sub-dimension in the prompt's language, and what the
    prompt asks for in this respect."""

    name: str
    subdimension: str
    description: str

    @property
    def dimension(self) -> str:
        return dimension_of(self.subdimension)


@dataclass(frozen=True)
class UnigenbenchPrompt:
    """One prompt; `data_id` is its `index`."""

    data_id: str
    language: str
    prompt: str
    theme: str
    points: tuple[PromptPoint, ...]

    def row(self) -> dict[str, Any]:
        """The prompt as a row again."""
        theme, names, descriptions = KEYS[self.language]
        told = {
            theme: self.theme,
            names: [point.name for point in self.points],
            descriptions: [point.description for point in self.points],
        }
        return {
            "index": self.data_id,
            f"prompt_{self.language}": self.prompt,
            f"sub_dims_{self.language}": json.dumps(told, ensure_ascii=False),
        }


def tag_of(prompt: UnigenbenchPrompt) -> str:
    """By what a limit is stratified."""
    return prompt.theme


def parse_prompt(row: dict[str, Any], where: str) -> UnigenbenchPrompt:
    """A row as a prompt; `where` names it in errors.

    Raises:
        DataError: the row is not in UniGenBench's format.
    """
    index = str(row.get("index", "")).strip()
    if not (index.isascii() and index.isdecimal()):
        raise DataError(f"{where}: index {row.get('index')!r}: expected a whole number from 0")
    if len(index) > MOST_DIGITS:
        raise DataError(f"{where}: index {index[:MOST_DIGITS]}...: {len(index)} digits; expected up to {MOST_DIGITS}")
    index = str(int(index))
    where = f"{where} (index {index})"
    languages = [language for language in LANGUAGES if f"sub_dims_{language}" in row]
    if len(languages) != 1:
        wanted = " or ".join(f"prompt_{language} and sub_dims_{language}" for language in LANGUAGES)
        raise DataError(f"{where}: expected the columns {wanted}")
    [language] = languages
    prompt, column = read_text(row, f"prompt_{language}", where), f"sub_dims_{language}"
    try:
        told = json.loads(row[column])
    except (TypeError, ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise DataError(f"{where}: {column}: expected a JSON object as text")
    theme = told.get(KEYS[language][0])
    names, descriptions = (_texts(told, key, f"{where}: {column}") for key in KEYS[language][1:])
    if len(names) != len(descriptions):
        raise DataError(f"{where}: {column}: {len(names)} test points and {len(descriptions)} descriptions")
    if not 1 <= len(names) <= MOST_POINTS:
        raise DataError(f"{where}: {column}: {len(names)} test points; expected 1 to {MOST_POINTS}")
    known = SUBDIMENSIONS[language]
    for name in names:
        if name not in known:
            raise DataError(f"{where}: {column}: test point {name!r} is unknown; known: {', '.join(known)}")
    points = tuple(PromptPoint(name, known[name], text) for name, text in zip(names, descriptions, strict=True))
    return UnigenbenchPrompt(index, language, prompt, theme if isinstance(theme, str) else "", points)


def _texts(told: dict[str, Any], key: str, where: str) -> list[str]:
    values = told.get(key)
    if not isinstance(values, list) or not all(isinstance(one, str) and is_writable(one) for one in values):
        raise DataError(f"{where}: {key}: expected a list of texts")
    return values


def read_prompts(path: str | Path) -> list[UnigenbenchPrompt]:
    """Read a prompt file, which is in one language.

    Raises:
        DataError: the file is missing, empty or faulty (names the prompt), or an index occurs twice.
    """
    seen: set[str] = set()

    def read(row: dict[str, Any], where: str) -> UnigenbenchPrompt:
        prompt = parse_prompt(row, where)
        if prompt.data_id in seen:  # told here by the key that the file has
            raise DataError(f"{where} (index {prompt.data_id}): the index occurs twice; make them unique")
        seen.add(prompt.data_id)
        return prompt

    prompts = listing.read_prompts(path, read)
    if len({prompt.language for prompt in prompts}) > 1:
        raise DataError(f"{path}: prompts in two languages; give each a file, and an image set, of its own")
    return prompts
