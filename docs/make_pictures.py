"""Draw the picture of the README from a finished `shapes` experiment.

    .venv/bin/python docs/make_pictures.py results/shapes promptecho-s1 40 docs/before-after.png

Above each other: the base model and the trained adapter on the same held-out caption from the same noise. The captions
are the first of the benchmark, not chosen by hand; frame and mark are the oracle's verdict.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from promptecho.figures.samples import check, write_stacked
from promptecho.figures.sources import read_columns

CAPTIONS, ACROSS = 24, 8


def main(results: Path, run: str, step: str, out: Path) -> None:
    """Draw and save."""
    folders = [results / "images" / checkpoint / "heldout" for checkpoint in ("base/0", f"{run}/{step}")]
    base, trained = read_columns(folders, results / "scores/heldout")
    columns = [replace(base, label="base model"), replace(trained, label=f"after {step} iterations")]
    keys = sorted(base.images)[:CAPTIONS]
    check(columns, keys)
    write_stacked(columns, keys, out, across=ACROSS)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]))
