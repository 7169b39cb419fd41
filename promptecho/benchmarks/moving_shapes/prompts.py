"""Prompts of moving shapes: captions of one mover and of two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from promptecho.benchmarks.captions.prompts import CaptionPrompt
from promptecho.errors import DataError
from promptecho.files import write_jsonl
from promptecho.moving.grammar import write
from promptecho.moving.world import Mover, random_movers
from promptecho.seeds import derive_seed

GROUPS = ("one", "two")  # movers
TRIES = 200


def group_of(movers: Sequence[Mover]) -> str:
    return GROUPS[min(len(movers), 2) - 1]


def write_moving_prompts(per_group: int, seed: int, out: Path) -> int:
    """Write `per_group` distinct captions of each of `GROUPS` as JSON Lines of {data_id, caption}; returns how many.

    Raises:
        DataError: there are not so many captions of one mover.
    """
    rows: dict[str, CaptionPrompt] = {}
    for count, group in enumerate(GROUPS, start=1):
        rng = np.random.default_rng(derive_seed(seed, "moving prompts", group))
        for n in range(per_group):
            for _ in range(TRIES):
                text = write(random_movers(rng, count), int(rng.integers(2)))
                if text not in rows:
                    break
            else:
                raise DataError(f"{per_group} captions of {group} mover: there are about {n}; ask for fewer")
            rows[text] = CaptionPrompt(f"{group}-{n:04}", text)
    write_jsonl(out, [asdict(row) for row in rows.values()])
    return len(rows)
