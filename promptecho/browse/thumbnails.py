"""Many images small enough for one file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from PIL import Image

from promptecho.archives import ImageFile
from promptecho.errors import DataError
from promptecho.images import load_image
from promptecho.reading.scales import SMALL

# Longest sides to choose from, in pixels. Below the last one nobody sees what an image shows.
SIZES = (320, 256, 224, 192, 160, 128, 112, 96, 80, 64, 48)
QUALITY = 72  # of WebP, 0 to 100
SAMPLE = 24  # images that are tried in every size
FIX = "delete it and rerun the generation"


@dataclass(frozen=True)
class Thumbnail:
    """A WebP image as base64 text, and the size of the image that it was made from, in pixels."""

    data: str
    width: int
    height: int


def thumbnails(files: Sequence[ImageFile], budget: float, threads: int = 1) -> tuple[list[Thumbnail], int]:
    """All images, as large as their texts fit `budget` bytes together; and the longest side that was chosen.

    A small image stays as it is, without loss, where there is room for that.

    Raises:
        DataError: an image cannot be read, or the images don't fit however small they are.
    """
    if not files:
        return [], SIZES[0]
    some = [files[(2 * k + 1) * len(files) // (2 * SAMPLE)] for k in range(SAMPLE)] if len(files) > SAMPLE else files
    loaded = [load_image(file, fix=FIX) for file in dict.fromkeys(some)]
    for place, pixels in enumerate(SIZES):
        last = place == len(SIZES) - 1
        mean = sum(len(encoded(image, pixels)) for image in loaded) / len(loaded)
        if not last and mean * len(files) > 0.95 * budget:
            continue
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(partial(_thumbnail, pixels=pixels), files))
        if sum(len(one.data) for one in found) <= budget:
            return found, pixels
    raise DataError(
        f"{len(files)} images of {SIZES[-1]} pixels don't fit {budget / 1e6:.3g} MB; raise --max-mb, or show fewer "
        "checkpoints (--max-columns, --run)"
    )


def _thumbnail(file: ImageFile, pixels: int) -> Thumbnail:
    image = load_image(file, fix=FIX)
    return Thumbnail(encoded(image, pixels), image.width, image.height)


def encoded(image: Image.Image, pixels: int) -> str:
    """An image of at most `pixels` on its longest side, as WebP in base64."""
    small = image.copy()
    small.thumbnail((pixels, pixels), reducing_gap=2.0)
    buffer = io.BytesIO()
    exact = max(image.size) <= min(SMALL, pixels)
    how = {"lossless": True, "method": 1} if exact else {"quality": QUALITY, "method": 4}
    small.save(buffer, format="WEBP", **how)
    return base64.b64encode(buffer.getvalue()).decode()
