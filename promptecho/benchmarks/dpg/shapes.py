"""DPG-Bench over the shapes vocabulary: prompts in the official nine columns, with questions that the oracle reads.

Of each object its presence (entity), colour (attribute) and where there are several their number (other), of a pair the
direction (relation); and of the whole image how many objects it shows (global), so that things added count.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from promptecho.errors import DataError
from promptecho.files import write_jsonl, write_text
from promptecho.seeds import derive_seed
from promptecho.shapes.grammar import LONG_RELATION, SHORT_RELATION, Claim, plural, random_claim, write
from promptecho.shapes.world import KINDS, NUMBERS

TRIES = 200  # draws per prompt before the vocabulary counts as used up


def questions_of(claim: Claim) -> list[dict[str, str]]:
    """The rows of a claim without item_id and text; a question depends on the presence of what it is about."""
    rows: list[dict[str, str]] = []

    def ask(broad: str, detailed: str, keywords: str, parents: list[int], question: str) -> int:
        number = len(rows) + 1
        rows.append(
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

    names, present = [], []
    for group in claim.groups:
        name = group.shape if group.count == 1 else plural(group.shape)
        names.append(name)
        one = group.count == 1
        there = ask("entity", "whole", name, [], f"Is there a {name}?" if one else f"Are there {name}?")
        present.append(there)
        if not one:
            number = NUMBERS[group.count]
            ask("other", "count", f"{name}, {number}", [there], f"Are there exactly {number} {name}?")
        if group.color:
            ask(
                "attribute", "color", f"{name}, {group.color}", [there],
                f"{'Is' if one else 'Are'} the {name} {group.color}?",
            )  # fmt: skip
    if claim.relation:
        first, second = names
        ask(
            "relation", "spatial", f"{first}, {second}, {SHORT_RELATION[claim.relation]}", present,
            f"Is the {first} {LONG_RELATION[claim.relation]} the {second}?",
        )  # fmt: skip
    total = sum(group.count for group in claim.groups)
    objects = f"{NUMBERS[total]} object{'' if total == 1 else 's'}"
    ask("global", "", objects, [], f"Does the image show exactly {objects}?")
    return rows


def dpg_rows(per_kind: int, seed: int) -> list[dict[str, str]]:
    """Rows of `per_kind` distinct prompts of each of the four KINDS of claims.

    The first row is there twice: the official rules drop it, and then lose nothing.

    Raises:
        DataError: the vocabulary has no more prompts of a kind.
    """
    rows: list[dict[str, str]] = []
    texts: set[str] = set()
    for kind in KINDS:
        rng = np.random.default_rng(derive_seed(seed, "dpg", kind))
        for n in range(per_kind):
            for _ in range(TRIES):
                claim = random_claim(rng, kind)
                text = write(claim, int(rng.integers(4)))
                if text not in texts:
                    break
            else:
                raise DataError(f"{per_kind} prompts of kind {kind!r}: the vocabulary has about {n}; ask for fewer")
            texts.add(text)
            rows += [{"item_id": f"{kind}_{n}", "text": text, **row} for row in questions_of(claim)]
    return [rows[0], *rows]


def write_dpg_questions(per_kind: int, seed: int, out: Path) -> int:
    """Write the questions, as CSV where `out` ends in .csv and as JSON Lines otherwise; returns how many prompts."""
    rows = dpg_rows(per_kind, seed)
    if out.suffix.lower() == ".csv":
        stream = io.StringIO()
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(out, stream.getvalue())
    else:
        write_jsonl(out, rows)
    return len({row["item_id"] for row in rows})
