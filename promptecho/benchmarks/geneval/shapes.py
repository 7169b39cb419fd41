"""GenEval prompts over the shapes vocabulary, in the official format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from promptecho.files import write_jsonl
from promptecho.seeds import derive_seed
from promptecho.shapes.grammar import SHORT_RELATION, plural
from promptecho.shapes.world import COLORS, NUMBERS, RELATIONS, SHAPES

POSITION_NAMES = {"left": "left of", "right": "right of", "above": "above", "below": "below"}


def geneval_prompts(per_tag: int, seed: int) -> list[dict[str, Any]]:
    """Up to `per_tag` prompts of each of GenEval's six tags over the shapes vocabulary, in the official format.

    All are distinct, so a tag has fewer where the vocabulary has no more: there are six shapes, so there are only six
    single_object prompts. Drawn without replacement in an order fixed by `seed`.
    """
    pairs = [(a, b) for a in SHAPES for b in SHAPES if a != b]
    color_pairs = [(a, b) for a in COLORS for b in COLORS if a != b]

    def one(shape: str, count: int = 1, **keys: Any) -> dict[str, Any]:
        return {"class": shape, "count": count, **keys}

    # (objects to include, prompt), and for counts (objects to exclude)
    everything: dict[str, list[tuple[Any, ...]]] = {
        "single_object": [([one(s)], f"a photo of a {s}") for s in SHAPES],
        "two_object": [([one(a), one(b)], f"a photo of a {a} and a {b}") for a, b in pairs],
        "counting": [
            ([one(s, n)], f"a photo of {NUMBERS[n]} {plural(s)}", [one(s, n + 1)]) for s in SHAPES for n in (2, 3, 4)
        ],
        "colors": [([one(s, color=c)], f"a photo of a {c} {s}") for s in SHAPES for c in COLORS],
        "position": [
            ([one(b), one(a, position=[POSITION_NAMES[r], 0])], f"a photo of a {a} {SHORT_RELATION[r]} a {b}")
            for a, b in pairs
            for r in RELATIONS
        ],
        "color_attr": [
            ([one(a, color=c), one(b, color=d)], f"a photo of a {c} {a} and a {d} {b}")
            for a, b in pairs
            for c, d in color_pairs
        ],
    }
    rows = []
    for tag, options in everything.items():
        rng = np.random.default_rng(derive_seed(seed, "geneval", tag))
        for index in rng.permutation(len(options))[:per_tag]:
            include, prompt, *exclude = options[index]
            row = {"tag": tag, "include": include, "prompt": prompt}
            if exclude:
                row["exclude"] = exclude[0]
            rows.append(row)
    return rows


def write_geneval_prompts(per_tag: int, seed: int, out: Path) -> int:
    """Write the prompts as JSON Lines; returns how many."""
    rows = geneval_prompts(per_tag, seed)
    write_jsonl(out, rows)
    return len(rows)
