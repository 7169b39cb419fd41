"""Read image files as a viewer shows them, whatever their format, number of bits, colours and size."""

from __future__ import annotations

import contextlib
import io
import math
import sys
import warnings
from pathlib import Path

from PIL import Image, ImageOps

from promptecho.archives import ArchivedImage
from promptecho.errors import DataError
from promptecho.foreign import other_kind, refuse_pipe, start_of
from promptecho.names import shown
from promptecho.pixels import RangeError, facts, to_rgb
from promptecho.pointers import pointer_problem

LARGEST = 1_000_000_000  # pixels; a file of more is taken for an attack
BIG = 89_478_485  # pixels; larger images are never kept at their size (Pillow calls them attacks)
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
HEIF_EXTRA = "install pillow-heif to read them: pip install -e '.[heic]' in the checkout"
Image.MAX_IMAGE_PIXELS = LARGEST


def load_image(
    path: str | Path | ArchivedImage | io.BytesIO,
    fix: str = "replace or remove it",
    *,
    background: str = "white",
    max_pixels: int | None = None,
) -> Image.Image:
    """Decode an image file whole, upright (EXIF orientation), as 8-bit RGB by the rules of `pixels.py`.

    `info["path"]` holds where it is from, `info["done"]` what was done to it beyond decoding, in words. Of several
    frames or pages it is the first, of the pictures of a HEIC file the one that it calls primary.

    Args:
        path: the file, also one in an archive; or its content, where that has been read (and looked at) already.
        fix: ends the error message: what the user should do about a bad file.
        background: what shows through transparent pixels.
        max_pixels: larger images are shrunk to so many, with a Lanczos filter. None: those above 89 million only.

    Raises:
        DataError: the file is missing, truncated, no image, has over a thousand million pixels, or numbers for which
            no rule says what is white.
    """
    limit = min(max_pixels or BIG, BIG)
    content = io.BytesIO(path.read_bytes()) if isinstance(path, ArchivedImage) else path
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if not isinstance(content, io.BytesIO):
                refuse_pipe(content)
                _register_heif(content)
            with Image.open(content) as opened:
                raw = facts(opened)
                full = opened.size
                if full[0] * full[1] > BIG:  # a JPEG can be decoded at a half, quarter or eighth of its size
                    opened.draft(None, _shrunk(full, limit))
                opened.load()  # Image.open reads the header only
                image, done = to_rgb(ImageOps.exif_transpose(opened), background, raw)
                if raw["format"] in ("GIF", "WEBP", "PNG", "TIFF", "AVIF") and _has_frames(opened):
                    done.append("first of several frames")
                if raw["format"] == "HEIF" and _has_frames(opened):
                    done.append("primary one of several pictures")
    except FileNotFoundError:
        raise DataError(f"{shown(path)}: no such image file") from None
    except Image.DecompressionBombWarning:
        raise DataError(f"{shown(path)}: more than {LARGEST:,} pixels, which no photograph has; {fix}") from None
    except Image.DecompressionBombError:
        raise DataError(f"{shown(path)}: more than {2 * LARGEST:,} pixels, which no photograph has; {fix}") from None
    except RangeError as error:
        raise DataError(f"{shown(path)}: {error}") from None
    except DataError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        if not isinstance(content, io.BytesIO):
            if problem := pointer_problem(content):
                raise DataError(f"{shown(path)}: {problem}") from None
            if other := other_kind(start_of(content), "an image"):
                raise DataError(f"{shown(path)}: {other}, or remove it") from None
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{shown(path)}: not a readable image ({reason}); {fix}") from error
    if full[0] * full[1] > BIG:
        told = f"{shown(path)}: {full[0]}x{full[1]} pixels, shrunk to {limit:,} of them at most"
        print(told, file=sys.stderr, flush=True)
    if image.width * image.height > limit:
        info = image.info
        image = image.resize(_shrunk(image.size, limit), Image.Resampling.LANCZOS)
        image.info = info
    if full[0] * full[1] > limit:
        done.append("shrunk")
    image.info["path"], image.info["done"] = str(path), tuple(done)
    return image


def _shrunk(size: tuple[int, int], limit: int) -> tuple[int, int]:
    """The largest size of the same shape with at most `limit` pixels (at least one a side)."""
    factor = math.sqrt(limit / (size[0] * size[1]))
    width, height = max(1, math.floor(size[0] * factor)), max(1, math.floor(size[1] * factor))
    return max(1, min(width, limit // height)), max(1, min(height, limit // width))


def _has_frames(opened: Image.Image) -> bool:
    with contextlib.suppress(Exception):  # a damaged second frame does not matter
        return bool(getattr(opened, "is_animated", False))
    return False


def _register_heif(path: str | Path) -> None:
    """HEIC files are read by a package that is not installed by default.

    Raises:
        DataError: `path` has such a suffix and the package is missing.
    """
    if Path(str(path)).suffix.lower() not in HEIF_SUFFIXES:
        return
    try:
        import pillow_heif
    except ImportError:
        raise DataError(f"{shown(path)}: a HEIC file; {HEIF_EXTRA}") from None
    pillow_heif.register_heif_opener()
