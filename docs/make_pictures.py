"""Draw the picture of the README from a finished `shapes` experiment.

    .venv/bin/python docs/make_pictures.py results/shapes promptecho-s1 10 docs/before-after.png

Each pair of columns shows the base model and the trained adapter on the same GenEval prompt from the same noise.
Prompts and image index are the first of each task, not chosen by hand; the frame is the oracle's verdict.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image

PER_TAG = 2


def outcomes(path: Path) -> dict[tuple[str, int], bool]:
    """Verdict by (prompt id, image index) from a score file."""
    items = json.loads(path.read_text())["items"]
    return {(item["prompt_id"], item["image_index"]): bool(item["outcome"]) for item in items}


def main(results: Path, run: str, step: str, out: Path) -> None:
    """Draw and save."""
    prompts = [json.loads(line) for line in (results / "prompts/geneval/metadata.jsonl").read_text().splitlines()]
    tags = list(dict.fromkeys(prompt["tag"] for prompt in prompts))
    chosen = [[i for i, p in enumerate(prompts) if p["tag"] == tag][:PER_TAG] for tag in tags]
    columns = [index for pair in zip(*chosen, strict=True) for index in pair]
    rows = [("base", "0", "base model"), (run, step, f"after {step} iterations")]
    figure, axes = plt.subplots(PER_TAG * 2, len(tags), figsize=(1.75 * len(tags), 8.2), layout="constrained")
    for block in range(PER_TAG):
        for column in range(len(tags)):
            index = columns[block * len(tags) + column]
            for line, (name, at, label) in enumerate(rows):
                axis = axes[block * 2 + line, column]
                folder = results / "images" / name / at / "geneval"
                axis.imshow(Image.open(folder / f"{index:05}" / "samples" / "00000.png"))
                right = outcomes(results / "scores/geneval" / name / f"{at}.json")[(f"{index:05}", 0)]
                for spine in axis.spines.values():
                    spine.set(color="#1e963c" if right else "#d22828", linewidth=3)
                axis.set(xticks=[], yticks=[])
                if line == 0:
                    axis.set_title(prompts[index]["prompt"].replace("a photo of ", "…"), fontsize=8, wrap=True)
                if column == 0:
                    axis.set_ylabel(label, fontsize=9)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]))
