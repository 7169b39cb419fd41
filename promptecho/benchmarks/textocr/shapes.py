"""Text-rendering prompts over the shapes vocabulary, so that this benchmark runs end to end on the embedded world.

That world's model never learned letters, and no letter is drawn for it: images are read by the real RapidOCR. So
a base model scores the prompts that require no text (by the rule, 1) and fails those that ask for a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from promptecho.files import write_jsonl
from promptecho.seeds import derive_seed
from promptecho.shapes.world import COLORS, SHAPES

TAGS = ("none", "word")


def textocr_prompts(per_tag: int, seed: int) -> list[dict[str, Any]]:
    """Up to `per_tag` prompts without text and as many that ask for a word, {data_id, prompt, text} each.

    All are distinct; the words are colours other than the shape's. A word that the embedded tokenizer never saw, such
    as "word", it spells in bytes.
    """
    kinds = [(color, shape) for color in COLORS for shape in SHAPES]
    options: dict[str, list[tuple[str, list[str]]]] = {
        "none": [(f"a photo of a {color} {shape}", []) for color, shape in kinds],
        "word": [
            (f'a photo of a {color} {shape} and the word "{word}"', [word])
            for color, shape in kinds
            for word in COLORS
            if word != color
        ],
    }
    rows = []
    for tag in TAGS:
        order = np.random.default_rng(derive_seed(seed, "textocr", tag)).permutation(len(options[tag]))[:per_tag]
        for number, index in enumerate(order):
            prompt, text = options[tag][index]
            rows.append({"data_id": f"{tag}-{number:03}", "prompt": prompt, "text": text})
    return rows


def write_textocr_prompts(per_tag: int, seed: int, out: Path) -> int:
    """Write the prompts as JSON Lines; returns how many."""
    rows = textocr_prompts(per_tag, seed)
    write_jsonl(out, rows)
    return len(rows)
