"""GenEval 2's prompts over the shapes vocabulary, in the official format: claims of the embedded world in atoms.

Of each group of objects its number, colour and presence are asked, as officially, and of two where the first lies; the
world has no verbs. An article is no atom, so that single objects have 2, counts 3, pairs 4 and relations 5.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from promptecho.errors import DataError
from promptecho.files import write_jsonl
from promptecho.seeds import derive_seed
from promptecho.shapes.grammar import LONG_RELATION, Claim, plural, random_claim, write
from promptecho.shapes.world import KINDS, NUMBERS

TRIES = 200  # draws per prompt before the vocabulary counts as used up


def prompt_row(claim: Claim, text: str) -> dict[str, Any]:
    """A claim, written as `text`, in atoms."""
    asked, count = [], 0
    for place, group in enumerate(claim.groups):
        one = group.count == 1
        many, name = plural(group.shape), group.shape if one else plural(group.shape)
        be = "Is" if one else "Are"
        asked.append((f"How many {many} are in the image?", NUMBERS[group.count], "count"))
        if group.color:
            asked.append((f"{be} the {name} {group.color}?", "Yes", "attribute"))
        asked.append((f"Are there any {many} in the image?", "Yes", "object"))
        count += 1 + bool(group.color) + (not one)
        if claim.relation and place == 0:
            other = claim.groups[1].shape
            asked.append((f"{be} the {name} {LONG_RELATION[claim.relation]} the {other}?", "Yes", "position"))
            count += 1
    return {
        "prompt": text,
        "atom_count": count,
        "vqa_list": [[question, answer] for question, answer, _ in asked],
        "skills": [skill for *_, skill in asked],
    }


def geneval2_rows(per_kind: int, seed: int) -> list[dict[str, Any]]:
    """`per_kind` distinct prompts of each of the four KINDS of claims.

    Raises:
        DataError: the vocabulary has no more prompts of a kind.
    """
    rows: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        rng = np.random.default_rng(derive_seed(seed, "geneval2", kind))
        for n in range(per_kind):
            for _ in range(TRIES):
                claim = random_claim(rng, kind)
                text = write(claim, int(rng.integers(4)))
                if text not in rows:
                    break
            else:
                raise DataError(f"{per_kind} prompts of kind {kind!r}: the vocabulary has about {n}; ask for fewer")
            rows[text] = prompt_row(claim, text)
    return list(rows.values())


def write_geneval2_prompts(per_kind: int, seed: int, out: Path) -> int:
    """Write the prompts as JSON Lines; returns how many."""
    rows = geneval2_rows(per_kind, seed)
    write_jsonl(out, rows)
    return len(rows)
