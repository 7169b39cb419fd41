"""Prompts and questions that embedded worlds write for themselves, as rows of the official nine columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from promptecho.errors import DataError
from promptecho.files import write_csv_or_jsonl
from promptecho.seeds import derive_seed
from promptecho.shapes.grammar import LONG_RELATION, SHORT_RELATION, plural
from promptecho.shapes.world import NUMBERS

TRIES = 200  # draws per prompt before the vocabulary counts as used up
Row = dict[str, str]
Draw = Callable[[np.random.Generator, str], tuple[str, list[Row]]]  # of a tag: a prompt and its questions


class QuestionSheet:
    """The questions about one prompt: `rows` lack item_id and text."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def ask(self, broad: str, detailed: str, keywords: str, parents: Iterable[int], question: str) -> int:
        """Add a question that depends on `parents`; returns its number, from 1."""
        number = len(self.rows) + 1
        self.rows.append(
            {
                "keywords": keywords,
                "proposition_id": str(number),
                "dependency": ",".join(map(str, parents)) or "0",
                "category_broad": broad,
                "category_detailed": detailed,
                "tuple": f"{broad} - {f'{detailed} ' if detailed else ''}({keywords})",
                "question_natural_language": question,
            }
        )
        return number

    def ask_group(self, count: int, shape: str, **said: str | None) -> int:
        """Ask whether objects are there, how many where that is not one, and for each attribute that is said, such as
        color="red"; returns the number of the first question, on which the others depend."""
        one, name = count == 1, _name(count, shape)
        there = self.ask("entity", "whole", name, [], f"Is there a {name}?" if one else f"Are there {name}?")
        if not one:
            number = NUMBERS[count]
            self.ask("other", "count", f"{name}, {number}", [there], f"Are there exactly {number} {name}?")
        for attribute, value in said.items():
            if value:
                question = f"{'Is' if one else 'Are'} the {name} {value}?"
                self.ask("attribute", attribute, f"{name}, {value}", [there], question)
        return there

    def ask_relation(self, first: str, direction: str, second: str, parents: Iterable[int]) -> None:
        """Ask whether `first` lies in a direction as seen from `second`."""
        question = f"Is the {first} {LONG_RELATION[direction]} the {second}?"
        self.ask("relation", "spatial", f"{first}, {second}, {SHORT_RELATION[direction]}", parents, question)

    def ask_total(self, total: int) -> None:
        """Ask how many objects the whole image shows."""
        objects = f"{NUMBERS[total]} object{'' if total == 1 else 's'}"
        self.ask("global", "", objects, [], f"Does the image show exactly {objects}?")


def _name(count: int, shape: str) -> str:
    return shape if count == 1 else plural(shape)


def draw_rows(tags: Iterable[str], per_tag: int, seed: int, purpose: str, draw: Draw) -> list[Row]:
    """Rows of `per_tag` distinct prompts of each tag, called TAG_0 and so on.

    The first row is there twice: the official rules drop it, and then lose nothing.

    Args:
        purpose: what the draws are for, so that no other prompts come from the same numbers.

    Raises:
        DataError: the vocabulary has no more prompts of a tag.
    """
    rows: list[Row] = []
    texts: set[str] = set()
    for tag in tags:
        rng = np.random.default_rng(derive_seed(seed, purpose, tag))
        for n in range(per_tag):
            for _ in range(TRIES):
                text, questions = draw(rng, tag)
                if text not in texts:
                    break
            else:
                raise DataError(f"{per_tag} prompts of kind {tag!r}: the vocabulary has about {n}; ask for fewer")
            texts.add(text)
            rows += [{"item_id": f"{tag}_{n}", "text": text, **row} for row in questions]
    return [rows[0], *rows]


def write_rows(rows: list[Row], out: Path) -> int:
    """Write the rows, as CSV where `out` ends in .csv and as JSON Lines otherwise; returns how many prompts."""
    write_csv_or_jsonl(out, rows)
    return len({row["item_id"] for row in rows})
