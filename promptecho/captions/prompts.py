"""Prompts from a file, in place of captions."""

from __future__ import annotations

import hashlib
import unicodedata
from pathlib import Path
from typing import Any

from promptecho.captions.store import CaptionRow
from promptecho.errors import DataError, listed
from promptecho.text_files import LISTS, TABLES, differing, read_lines, read_rows, suffix_of, value_of

TEXT_KEYS = ("caption", "prompt", "text")  # the first that a row has
ID_KEYS = ("data_id", "prompt_id", "id", "index")


def read_prompts(path: str | Path) -> list[CaptionRow]:
    """Read a .txt file (a prompt a line, empty lines skipped), or a .jsonl, .csv or .tsv file: a row a prompt, its text
    `caption`, `prompt` or `text`, its id `data_id`,
    `prompt_id`, `id` or `index`, other keys let be. A row may have two texts if they are the same.

    A prompt without id is named after its place in the file: 000001, 000002, ...

    Raises:
        DataError: the file is missing, empty or of unknown kind (promptecho/text_files.py), a prompt is empty or not
            text, an id occurs twice; names all faulty prompts at once.
    """
    path = Path(path)
    entries: list[tuple[int, Any, Any]]  # line, id, text
    if suffix_of(path) in LISTS:
        entries = [(number, f"{number:06d}", line) for number, line in read_lines(path)]
    elif suffix_of(path) in TABLES:
        entries = [(line, *_of_row(row, place)) for place, (line, row) in enumerate(read_rows(path), start=1)]
    else:
        raise DataError(
            f"{path}: give prompts as .txt (one a line), or as .jsonl, .csv or .tsv (a caption, prompt or text each)"
        )
    if not entries:
        header = "" if suffix_of(path) not in (".csv", ".tsv") else "; its first row must name the columns"
        raise DataError(f"{path}: holds no prompts{header}")
    if all(isinstance(text, set) for _, _, text in entries):
        header = "" if suffix_of(path) not in (".csv", ".tsv") else " (the first row must name the columns)"
        raise DataError(f"{path}: {_unnamed(entries[0][2])}{header}")
    made: dict[str, CaptionRow] = {}
    problems = []
    for place, (line, prompt_id, text) in enumerate(entries, start=1):
        name = f"{path}:{line}: prompt {place} (data_id {prompt_id!r})"
        if problem := _problem(prompt_id, text, made):
            problems.append(f"{name}: {problem}")
            continue
        text = text.strip()
        digest = hashlib.sha256(text.encode()).hexdigest()
        made[str(prompt_id)] = CaptionRow(str(prompt_id), text, -1, "stop", digest)
    if problems:
        raise DataError(listed(problems, "faulty prompts"))
    return list(made.values())


def _of_row(row: dict[str, Any], place: int) -> tuple[Any, Any]:
    """Id and text of a row; without any of `TEXT_KEYS` its keys, as a set; with several that differ the problem."""
    named = value_of(row, ID_KEYS)
    text = value_of(row, TEXT_KEYS)
    if problem := differing(row, TEXT_KEYS):
        text = ("", _Problem(problem))
    return named[1] if named else f"{place:06d}", text[1] if text else set(row)


class _Problem(str):
    """What is wrong with a row, in the place of its text."""


def _unnamed(keys: set[str]) -> str:
    found = ", ".join(sorted(map(repr, keys))[:8]) or "none"
    return f"no caption, prompt or text in its rows, but these names: {found}; rename the one that holds the prompt"


def _problem(prompt_id: Any, text: Any, made: dict[str, CaptionRow]) -> str | None:
    """What is wrong with one prompt."""
    if not isinstance(prompt_id, str | int) or isinstance(prompt_id, bool) or not _is_writable(str(prompt_id)):
        return "the id is no text; give a text or a whole number"
    if str(prompt_id) in made:
        return "the id occurs twice; make ids unique"
    if isinstance(text, set):
        return _unnamed(text)
    if isinstance(text, _Problem):
        return text
    if not isinstance(text, str):
        return f"the caption is no text ({text!r:.40}); give a text"
    if not text.strip():
        return "the caption is empty; remove it or fill it in"
    if not any(map(is_seen, text)):
        return "the caption holds nothing that can be seen, but characters without width; remove it or fill it in"
    if not _is_writable(text):
        return "the caption holds a NUL or half a character; correct it"
    return None


def is_seen(character: str) -> bool:
    """Whether a character makes a text different from an empty one: white space, control and format characters do
    not."""
    return not character.isspace() and unicodedata.category(character) not in ("Cc", "Cf")


def _is_writable(text: str) -> bool:
    """Whether a text has a UTF-8 form and holds more than white space, and no NUL."""
    return bool(text.strip()) and "\0" not in text and text.encode(errors="ignore").decode() == text
