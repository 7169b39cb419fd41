"""RapidOCR beside the gallery's oracle on drawn posters: `python perf/poster_readers.py --n 100`.

The oracle compares cells with the glyphs that were drawn; RapidOCR knows nothing of them. Posters are 64 pixels wide,
as the models draw them, and with `--enlarge K` K times as large (bicubic) before RapidOCR looks.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
from PIL import Image

from promptecho.benchmarks.textocr.rapid import RapidReader
from promptecho.benchmarks.textocr.rules import compare
from promptecho.gallery.drawing import draw_poster
from promptecho.gallery.posters import random_poster
from promptecho.gallery.text_oracle import read_poster
from promptecho.intervals import wilson_interval
from promptecho.seeds import derive_seed


def share(hits: int, n: int) -> str:
    low, high = wilson_interval(hits, n)
    return f"{hits} of {n}, {100 * hits / n:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100, help="posters, with held-out words")
    parser.add_argument("--enlarge", type=int, default=1, help="how many times as large RapidOCR sees them")
    arguments = parser.parse_args()
    reader, right, oracle, edits, characters = RapidReader(), 0, 0, 0, 0
    titles = {True: [0, 0], False: [0, 0]}  # of titles and of all smaller texts: read right, there
    for index in range(arguments.n):
        rng = np.random.default_rng(derive_seed("poster readers", index))
        poster = random_poster(rng, held_out=True)
        image = draw_poster(poster, rng)
        oracle += read_poster(image).poster.texts == poster.texts
        side = image.width * arguments.enlarge
        lines = [line.text for line in reader(image.resize((side, side), Image.Resampling.BICUBIC))]
        comparison = compare([word for _, word in poster.texts], lines)
        right, edits, characters = (
            right + comparison.exact,
            edits + comparison.edits,
            characters + comparison.characters,
        )
        for role, word in poster.texts:
            counts = titles[role == "main_title"]
            counts[0] += any("".join(line.split()).lstrip("■-·•.") == word for line in lines)
            counts[1] += 1
    facts = {
        "oracle: all text right": share(oracle, arguments.n),
        "RapidOCR: all text right": share(right, arguments.n),
        "RapidOCR: titles, 14 pixels high": share(*titles[True]),
        "RapidOCR: other texts, 7 pixels high, bullets and spaces aside": share(*titles[False]),
        "RapidOCR: edits per character": round(edits / characters, 3),
    }
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
