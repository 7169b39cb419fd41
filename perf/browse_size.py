"""How large the page of `promptecho browse` is with images of real size, and what making it costs.

    python perf/browse_size.py --prompts 1000 --columns 2

The images are drawn, 1024 x 1024 each: discs of all sizes, as often as r^-3, that hide one another and have a grain of
their own ("dead leaves"). Their sizes and edges are distributed as those of photographs (Lee, Mumford and Huang, 2001),
and it is these that decide how far an image can be compressed; `--photo FILE` puts the mean size of such a thumbnail
beside that of a photograph. `--distinct` of them are drawn, and the files of all others are links to these, each of
which is read and encoded for itself. Judge's words are of `--words` random words.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from promptecho.browse.page import write_browser
from promptecho.browse.thumbnails import encoded
from promptecho.config import load_experiment
from promptecho.files import write_jsonl
from promptecho.provenance import Provenance
from promptecho.scores import ScoreItem, Scores, raw_path, write_scores

ROOT = Path(__file__).resolve().parent.parent
SIDE = 1024
WORDS = ["a", "the", "image", "shows", "red", "blue", "left", "of", "above", "cat", "lamp", "wooden", "table", "sky"]


def dead_leaves(seed: int, side: int = SIDE, discs: int = 2500) -> Image.Image:
    """Discs with radii distributed as r^-3, the later ones in front, and a grain that a sensor would add."""
    rng = np.random.default_rng(seed)
    low, high = 3.0, side / 2
    radii = 1 / np.sqrt(1 / low**2 + rng.random(discs) * (1 / high**2 - 1 / low**2))
    image = Image.new("RGB", (side, side))
    pen = ImageDraw.Draw(image)
    for radius in np.concatenate([np.full(60, high / 2), radii]):
        x, y = rng.random(2) * side
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tuple(rng.integers(20, 236, 3).tolist()))
    grain = rng.normal(0, 4, (side, side, 1))
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))


def write_experiment(folder: Path, prompts: int, columns: int, images: int, distinct: int, words: int) -> None:
    """Images, scores and raw records of the benchmark `geneval`."""
    draw = random.Random(0)
    drawn = [folder / f"drawn/{k}.png" for k in range(distinct)]
    drawn[0].parent.mkdir(parents=True)
    for k, path in enumerate(drawn):
        dead_leaves(k).save(path, compress_level=1)
    for column in range(columns):
        run, step = ("base", 0) if column == 0 else ("run", column)
        root = folder / f"images/{run}/{step}/geneval"
        rows, raw = [], []
        for p in range(prompts):
            text = " ".join(random.Random(p).choices(WORDS, k=12))
            for i in range(images):
                name = f"{p:05}_{i}.png"
                rows.append({"prompt_id": f"{p:05}", "image_index": i, "prompt": text, "filename": name})
                root.mkdir(parents=True, exist_ok=True)
                os.link(drawn[draw.randrange(distinct)], root / name)
                raw.append(
                    {"prompt_id": f"{p:05}", "image_index": i, "group": "colors", "outcome": float(draw.random() < 0.6),
                     "reason": " ".join(draw.choices(WORDS, k=words)), "detections": {"cat": [[10, 20, 300, 400, 0.9]]}}
                )  # fmt: skip
        write_jsonl(root / "shards/0.jsonl", rows)
        keys = ("prompt_id", "image_index", "group", "outcome")
        items = [ScoreItem(**{key: row[key] for key in keys}, failed=False) for row in raw]
        provenance = Provenance(
            experiment="shapes", run=run, step=step, benchmark="geneval", scorer="geneval", backend="oracle",
            mode="official", judge_model="none", n=len(items), failures=0,
        )  # fmt: skip
        path = folder / f"scores/geneval/{run}/{step}.json"
        write_scores(path, Scores(provenance=provenance, summary={"overall": 0.6}, items=items))
        write_jsonl(raw_path(path), raw)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--columns", type=int, default=2, help="checkpoints, the base model among them")
    parser.add_argument("--images", type=int, default=1, help="images of each prompt")
    parser.add_argument("--distinct", type=int, default=40, help="images that are drawn; all others are links to them")
    parser.add_argument("--words", type=int, default=60, help="words of a judge about each image")
    parser.add_argument("--max-mb", type=float, default=30.0)
    parser.add_argument("--photo", type=Path, help="a photograph, for comparison")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results, out = Path(folder) / "shapes", Path(folder) / "page.html"
        write_experiment(results, args.prompts, args.columns, args.images, args.distinct, args.words)
        experiment = load_experiment(ROOT / "config/experiments/shapes.yaml")
        wall, cpu = time.perf_counter(), time.process_time()
        size = write_browser(results, "geneval", out, experiment, max_mb=args.max_mb)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        pixels = out.read_text(encoding="utf-8").rpartition('"pixels":')[2].partition("}")[0].partition(",")[0]
        total = args.prompts * args.columns * args.images
        print(f"{args.prompts} prompts x {args.columns} checkpoints x {args.images} images of {SIDE} pixels: {total}")
        print(
            f"page {size / 1e6:.1f} MB with thumbnails of {pixels} pixels; {cpu:.0f} CPU s, {wall:.0f} s of the clock"
        )
        if args.photo is not None:
            drawn = [Image.open(path) for path in sorted((results / "drawn").iterdir())]
            mean = sum(len(encoded(image, int(pixels))) for image in drawn) / len(drawn)
            with Image.open(args.photo) as photo:
                side = min(photo.size)
                one = len(encoded(photo.convert("RGB").crop((0, 0, side, side)), int(pixels)))
            told = f"{mean:.0f} of a drawn image (mean of {len(drawn)}), {one} of the photograph"
            print(f"bytes of the page for a thumbnail: {told}")


if __name__ == "__main__":
    main()
