"""Read image files."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image, ImageOps

from promptecho.errors import DataError


def load_image(path: str | Path, fix: str = "replace or remove it") -> Image.Image:
    """Decode an image file whole, upright (EXIF orientation), as RGB; `image.info["path"]` holds where it is from.

    `fix` ends the error message: what the user should do about a bad file.

    Raises:
        DataError: the file is missing, truncated, or no image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                opened.load()  # Image.open reads the header only
                image = ImageOps.exif_transpose(opened).convert("RGB")
    except FileNotFoundError:
        raise DataError(f"{path}: no such image file") from None
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path}: not a readable image ({reason}); {fix}") from error
    image.info["path"] = str(path)
    return image
