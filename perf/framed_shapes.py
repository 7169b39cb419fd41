"""Photographs of the embedded world in three shapes: each rendered image framed as its objects lie.

    promptecho shapes render --count 1200 --seed 11 --out rendered
    python perf/framed_shapes.py rendered framed

Where the objects are wider than high, and fit, the image becomes 56 x 72 pixels (height x width): rows without objects
are cut off, and columns of background added on both sides; where they are higher than wide, 72 x 56. All others stay
64 x 64. So shapes of images go with what they show, as those of photographs do: "left of" is wide, "above" high.
Printed: how many images have which size.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from promptecho.shapes.oracle import detect

SIDE, SHORT, LONG, MARGIN = 64, 56, 72, 2


def framed(image: Image.Image) -> Image.Image:
    """The image in the shape that goes with its objects."""
    boxes = np.array([one.box for one in detect(image)])
    if not len(boxes):
        return image
    left, top, right, bottom = *boxes[:, :2].min(0), *boxes[:, 2:].max(0)
    width, height = right - left, bottom - top
    if width == height or min(width, height) + 2 * MARGIN > SHORT:
        return image
    middle = (top + bottom) / 2 if width > height else (left + right) / 2
    start = int(np.clip(round(middle - SHORT / 2), 0, SIDE - SHORT))
    wide = width > height
    size = (LONG, SHORT) if wide else (SHORT, LONG)
    place = ((LONG - SIDE) // 2, -start) if wide else (-start, (LONG - SIDE) // 2)
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    canvas = Image.new("RGB", size, tuple(int(one) for one in np.median(border, axis=0)))
    canvas.paste(image, place)
    return canvas


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of rendered images")
    parser.add_argument("out", type=Path, help="folder to write")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    sizes: Counter[str] = Counter()
    for path in sorted(options.images.glob("*.png")):
        image = framed(Image.open(path).convert("RGB"))
        image.save(options.out / path.name)
        sizes[f"{image.height}x{image.width}"] += 1
    for size, count in sorted(sizes.items()):
        print(f"{size:>8}  {count}")


if __name__ == "__main__":
    main()
