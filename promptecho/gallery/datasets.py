"""What takes the place of data sets in experiments of the gallery: rendered scenes, and prompts for posters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from promptecho.files import write_jsonl
from promptecho.gallery.captions import dense_scene_of, random_dense_claim
from promptecho.gallery.drawing import draw_scene
from promptecho.gallery.posters import random_poster, write_label, write_prompt
from promptecho.seeds import derive_seed


def training_scene(rng: np.random.Generator) -> Image.Image:
    """A scene as dense prompts ask for one."""
    return draw_scene(dense_scene_of(random_dense_claim(rng), rng), rng)


def poster_prompts(count: int, seed: int) -> list[dict[str, str]]:
    """`count` distinct prompts without held-out words, {data_id, prompt, label} each: a file of prompts
    (`captions.prompts`) and of labels (`rewards[].label`) in one."""
    rows: dict[str, str] = {}
    index = 0
    while len(rows) < count:
        poster = random_poster(np.random.default_rng(derive_seed(seed, "poster prompt", index)))
        rows.setdefault(write_prompt(poster, index % 3), write_label(poster))
        index += 1
    width = max(4, len(str(count - 1)))
    return [
        {"data_id": f"poster-{place:0{width}}", "prompt": prompt, "label": label}
        for place, (prompt, label) in enumerate(rows.items())
    ]


def write_poster_prompts(count: int, seed: int, out: Path) -> None:
    """Write them as JSON Lines."""
    write_jsonl(out, list(poster_prompts(count, seed)))
