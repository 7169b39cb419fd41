"""Draw the pictures of README and docs from a finished `shapes` experiment.

    .venv/bin/python docs/make_pictures.py results/shapes promptecho-s1 20 docs

What each shows is what the workflow draws too: before-after.png is figures/samples_RUN.png on the held-out captions,
curves-shapes.png is figures/curves_heldout.png, training-shapes.png is figures/training.png.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from promptecho.figures.curves import curve_data, write_curves
from promptecho.figures.draw_samples import write_samples
from promptecho.figures.samples import choose
from promptecho.figures.sources import read_columns, read_curve_sources, read_training_sources
from promptecho.figures.training import training_data, write_training


def main(results: Path, run: str, step: str, docs: Path) -> None:
    """Draw and save."""
    folders = [results / "images" / checkpoint / "heldout" for checkpoint in ("base/0", f"{run}/{step}")]
    columns = read_columns(folders, results / "scores/heldout")
    with tempfile.TemporaryDirectory() as temporary:
        made = {
            "before-after.png": write_samples(columns, choose(columns, 24), Path(temporary) / "samples"),
            "curves-shapes.png": write_curves(curve_data(read_curve_sources([results], "heldout")), Path(temporary)),
            "training-shapes.png": write_training(training_data(*read_training_sources([results])), Path(temporary)),
        }
        for name, paths in made.items():
            shutil.copyfile(paths[0], docs / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]))
