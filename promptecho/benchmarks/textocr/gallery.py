"""Text-rendering prompts over the gallery: posters with one to three words that no training sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from promptecho.files import write_jsonl
from promptecho.gallery.posters import random_poster, write_prompt
from promptecho.seeds import derive_seed

COUNTS = {1: "1 text", 2: "2 texts", 3: "3 texts"}


def poster_prompts(per_tag: int, seed: int) -> list[dict[str, Any]]:
    """`per_tag` distinct prompts with one text, with two and with three, {data_id, prompt, text, category} each."""
    rows: list[dict[str, Any]] = []
    for count, category in COUNTS.items():
        prompts: dict[str, list[str]] = {}
        index = 0
        while len(prompts) < per_tag:
            rng = np.random.default_rng(derive_seed(seed, "textocr gallery", count, index))
            poster = random_poster(rng, held_out=True, count=count)
            prompts.setdefault(write_prompt(poster, index % 3), [word for _, word in poster.texts])
            index += 1
        rows += [
            {"data_id": f"texts{count}-{number:03}", "prompt": prompt, "text": text, "category": category}
            for number, (prompt, text) in enumerate(prompts.items())
        ]
    return rows


def write_poster_prompts(per_tag: int, seed: int, out: Path) -> int:
    """Write the prompts as JSON Lines; returns how many."""
    rows = poster_prompts(per_tag, seed)
    write_jsonl(out, rows)
    return len(rows)
