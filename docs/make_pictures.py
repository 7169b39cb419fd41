"""Draw the picture of the README from a finished `shapes` experiment.

    .venv/bin/python docs/make_pictures.py results/shapes promptecho-s1 10 docs/before-after.png

Above each other: the base model and the trained adapter on the same GenEval prompt from the same noise. Prompts and
image index are the first of each task, not chosen by hand; frame and mark are the oracle's verdict.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from promptecho.figures.samples import check, write_stacked
from promptecho.figures.sources import read_columns
from promptecho.files import read_jsonl

PER_TAG = 2


def main(results: Path, run: str, step: str, out: Path) -> None:
    """Draw and save."""
    prompts = read_jsonl(results / "prompts/geneval/metadata.jsonl")
    tags = list(dict.fromkeys(prompt["tag"] for prompt in prompts))
    chosen = [[(f"{i:05}", 0) for i, p in enumerate(prompts) if p["tag"] == tag][:PER_TAG] for tag in tags]
    keys = [key for band in zip(*chosen, strict=True) for key in band]
    folders = [results / "images" / checkpoint / "geneval" for checkpoint in ("base/0", f"{run}/{step}")]
    base, trained = read_columns(folders, results / "scores/geneval")
    columns = [replace(base, label="base model"), replace(trained, label=f"after {step} iterations")]
    check(columns, keys)
    write_stacked(columns, keys, out, across=len(tags))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]))
