"""The crop of one detected object that GenEval's colour classifier sees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from promptecho.errors import DataError

BACKGROUND = "#999"


def object_crop(
    image: Image.Image,
    box: Sequence[float] | np.ndarray,
    mask: np.ndarray | None = None,
    *,
    background: str = BACKGROUND,
    crop: bool = True,
) -> Image.Image:
    """Pixels outside the object's mask become `background`, then the image is cut to the box.

    Args:
        image: the whole picture, any mode.
        box: x1, y1, x2, y2, ... in pixels; rounded half to even, and black where it leaves the image (both Pillow's).
        mask: bool `[H, W]`, or None to keep all pixels.
        background: a Pillow colour, or "original" to keep the pixels outside the mask.
        crop: False returns the masked picture uncut.

    Raises:
        DataError: the mask has another size than the image.
    """
    image = image.convert("RGB")
    if mask is not None:
        if mask.shape != image.size[::-1]:
            raise DataError(f"object mask is {mask.shape[1]}x{mask.shape[0]}, the image {image.width}x{image.height}")
        blank = image.copy() if background == "original" else Image.new("RGB", image.size, color=background)
        image = Image.composite(image, blank, Image.fromarray(mask.astype(bool)))
    # Pillow 13 rejects numpy arrays as boxes, so plain floats go in.
    left, top, right, bottom = (float(side) for side in box[:4])
    return image.crop((left, top, right, bottom)) if crop else image
