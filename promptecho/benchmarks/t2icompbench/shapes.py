"""Prompts of T2I-CompBench++ over the embedded world: two coloured shapes, two shapes, a place, a number.

As officially, places and numbers are said of things without attributes. The world has no textures and no actions, and
its words for places are its own ("to the left of", "above"), so that a line says which of the official ones is meant.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from promptecho.errors import DataError
from promptecho.files import write_jsonl
from promptecho.seeds import derive_seed
from promptecho.shapes.grammar import Claim, phrase, random_claim, write

KINDS = {"color": "pair", "shape": "pair", "spatial": "relation", "numeracy": "count"}
PLACES = {"left": "on the left of", "right": "on the right of", "above": "on the top of", "below": "on the bottom of"}
TRIES = 200  # draws per prompt before the vocabulary counts as used up


def prompt_row(claim: Claim, text: str, category: str) -> dict[str, Any]:
    """A claim, written as `text`, with what the category's measure asks for."""
    row: dict[str, Any] = {"prompt": text, "category": category}
    if category == "spatial":
        return row | {"objects": [group.shape for group in claim.groups], "place": PLACES[claim.relation or ""]}
    if category == "numeracy":
        return row | {"counts": [[group.shape, group.count] for group in claim.groups]}
    return row | {"phrases": [phrase(group) for group in claim.groups]}


def compbench_rows(per_category: int, seed: int) -> list[dict[str, Any]]:
    """`per_category` distinct prompts of each of the four categories that this world has.

    Raises:
        DataError: the vocabulary has no more prompts of a category.
    """
    rows: dict[str, dict[str, Any]] = {}
    for category, kind in KINDS.items():
        rng = np.random.default_rng(derive_seed(seed, "t2icompbench", category))
        for n in range(per_category):
            for _ in range(TRIES):
                claim = random_claim(rng, kind, colors=category == "color")
                text = write(claim, int(rng.integers(4)))
                if text not in rows:
                    break
            else:
                raise DataError(f"{per_category} prompts of {category}: the vocabulary has about {n}; ask for fewer")
            rows[text] = prompt_row(claim, text, category)
    return list(rows.values())


def write_compbench_prompts(per_category: int, seed: int, out: Path) -> int:
    """Write the prompts as JSON Lines; returns how many."""
    rows = compbench_rows(per_category, seed)
    write_jsonl(out, rows)
    return len(rows)
