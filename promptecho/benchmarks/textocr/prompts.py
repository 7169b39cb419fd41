"""Prompts that ask for text in the image: {data_id, prompt, text} a line, or LongText-Bench's rows as they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptecho.benchmarks import listing
from promptecho.benchmarks.listing import is_writable, read_id, read_text
from promptecho.errors import DataError

ALL = "all"  # the group of prompts without category


@dataclass(frozen=True)
class TextOcrPrompt:
    """One prompt; `data_id` names it in scores.

    `text` are the texts that the image must show, in the order in which the prompt names them: empty where it must show
    none, None where only a judge can know. LongText-Bench has eight categories and the lengths short and long.
    """

    data_id: str
    prompt: str
    text: tuple[str, ...] | None
    category: str | None = None
    length: str | None = None

    @property
    def group(self) -> str:
        """The prompt's group in scores and tables."""
        return self.category or ALL

    def row(self) -> dict[str, Any]:
        """The prompt as a JSON object that `parse_prompt` reads back."""
        row: dict[str, Any] = {"data_id": self.data_id, "prompt": self.prompt}
        if self.text is not None:
            row["text"] = list(self.text)
        return {**row, **{key: getattr(self, key) for key in ("category", "length") if getattr(self, key) is not None}}


def parse_prompt(row: dict, where: str) -> TextOcrPrompt:
    """Check one object: `data_id` or LongText-Bench's `prompt_id`, `prompt`, and `text`; other keys are let be.

    Raises:
        DataError: a key is missing or of the wrong kind (`where` names the line).
    """
    data_id = read_id(row.get("data_id", row.get("prompt_id")), where)
    where = f"{where} (data_id {data_id!r})"
    texts = row.get("text")
    if texts is not None:
        if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
            raise DataError(f"{where}: text is no list of texts; write [] where the image must show none")
        if not all(map(is_writable, texts)):
            raise DataError(f"{where}: text holds a NUL or half a character; correct it")
        texts = tuple(text.strip() for text in texts)
    labels = {key: read_text(row, key, where) for key in ("category", "length") if row.get(key) is not None}
    return TextOcrPrompt(data_id, read_text(row, "prompt", where), texts, **labels)


def read_prompts(path: str | Path) -> list[TextOcrPrompt]:
    """Read a prompt set, see `listing.read_prompts`."""
    return listing.read_prompts(path, parse_prompt)
