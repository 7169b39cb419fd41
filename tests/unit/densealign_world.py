"""Two folders of real renders for the tests of pairwise comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from promptecho.benchmarks.captions.layout import CaptionsLayout
from promptecho.files import write_jsonl
from promptecho.seeds import derive_seed
from promptecho.shapes.grammar import Claim, corrupt, parse, random_claim, scene_of, write
from promptecho.shapes.render import render


def draw(claim: Claim | str, path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    render(scene_of(parse(claim) if isinstance(claim, str) else claim, rng), rng).save(path)


def write_folder(root: Path, prompts: Path, shown: Sequence[Sequence[Claim | str]], seed: int = 0) -> Path:
    """An image folder whose prompt p has the images of the claims `shown[p]`; `seed` draws them."""
    layout = CaptionsLayout(prompts, root, len(shown[0]))
    root.mkdir(parents=True)
    for p, claims in enumerate(shown):
        for i, claim in enumerate(claims):
            draw(claim, layout.image_path(p, i), derive_seed(seed, p, i))
    layout.describe(range(len(shown)))
    return root


def write_pairs(folder: Path, count: int, images: int = 1, seed: int = 0) -> tuple[Path, Path, Path]:
    """Prompts, and a candidate's and a baseline's images: right or wrong in one fact, the baseline more often wrong."""
    rng = np.random.default_rng(seed)
    claims = [random_claim(rng) for _ in range(count)]
    prompts = folder / "prompts.jsonl"
    write_jsonl(prompts, [{"data_id": f"s/{p}", "caption": write(claim, p % 4)} for p, claim in enumerate(claims)])
    sides = []
    for side, (name, share) in enumerate((("candidate", 0.7), ("baseline", 0.4))):
        shown = [[c if rng.random() < share else corrupt(c, rng) for _ in range(images)] for c in claims]
        sides.append(write_folder(folder / name, prompts, shown, side))
    return prompts, *sides
