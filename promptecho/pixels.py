"""Pixels as a viewer on a plain background shows them: any mode of Pillow to 8-bit RGB in sRGB.

The rules, in this order; a plain 8-bit RGB image passes through them untouched.
1. Range. Grey of more than 8 bits: black is 0 and white is the largest number that the file's bits can hold (65535;
   4095 in a TIFF of 12 bits), never the darkest and the brightest pixel of the image. Floating point: 0 to 1. A file of
   other numbers (32-bit whole numbers, signed ones, floats outside 0..1) has no white that all viewers agree on and is
   refused with its range.
2. Colour. An embedded ICC profile (Display P3, Adobe RGB, a printer's CMYK, ...) is converted to sRGB, with the
   profile's own intent; a profile that changes no channel by more than two of 255 is sRGB in all but its name and
   ignored, and so is one that is damaged or of another kind of colours than the pixels, as in viewers. CMYK without
   profile is converted by (255 - ink) * (255 - black) / 255. (Gamma written in a PNG without a profile is not applied;
   viewers disagree on it.)
3. Transparency of any kind (alpha, a palette's, one colour that counts as transparent) is composited on the background.
"""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageFile

SRGB_TOLERANCE = 2  # of 255, on a grid of colours
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # tags of TIFF; photometric 0: white is zero
_SCALE = {"L;2": 3, "L;4": 15}  # raw modes of grey whose transparent value counts steps, not 0 to 255
_COLOURS = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}  # how a profile names the colours of a mode


class RangeError(ValueError):
    """Pixels whose numbers have no range of which a rule says what is black and what white."""


def to_rgb(
    image: Image.Image, background: str = "white", raw: dict[str, Any] | None = None
) -> tuple[Image.Image, list[str]]:
    """`image` (decoded, upright) as RGB, and what had to be done to it in words; none for a plain 8-bit RGB image.

    Args:
        background: what shows through, any colour that Pillow knows by name or as #rrggbb.
        raw: what the file said before it was decoded (`facts`).

    Raises:
        RangeError: the numbers have no range that says which is white; tells what they are.
    """
    raw = raw or {}
    done: list[str] = []
    profile = image.info.get("icc_profile")
    mask = _mask(image, raw)
    if image.mode.startswith("I") or image.mode == "F":
        image = _by_range(image, raw, done)
    if image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or (image.mode == "P" and image.has_transparency_data):
        rgba = image.convert("RGBA")
        mask = rgba.getchannel("A")
        image = image.convert("LA").getchannel("L") if image.mode in ("LA", "La") else rgba.convert("RGB")
        if mask.getextrema() == (0, 0) and raw.get("format") in ("TGA", "BMP"):
            mask = None  # these formats have files whose fourth byte is merely unused
    image = _to_srgb(image, profile, done)
    if mask is not None and mask.getextrema() != (255, 255):
        done.append("transparency")
        image = Image.composite(image, Image.new("RGB", image.size, background), mask)
    return image, done


def facts(opened: ImageFile.ImageFile) -> dict[str, Any]:
    """What only an opened, not yet decoded file tells: format, raw mode, TIFF's bits and photometric interpretation."""
    tile = opened.tile[0] if opened.tile else None
    args = tile.args if tile is not None else None
    raw: dict[str, Any] = {"format": opened.format, "raw_mode": args[0] if isinstance(args, tuple) and args else args}
    tags = getattr(opened, "tag_v2", None)
    if tags is not None:
        raw["bits"] = (tags.get(_BITS_PER_SAMPLE) or (1,))[0]
        raw["inverted"] = tags.get(_PHOTOMETRIC) == 0
    return raw


def _by_range(image: Image.Image, raw: dict[str, Any], done: list[str]) -> Image.Image:
    """A grey image of more than 8 bits as L."""
    values = np.asarray(image)
    inverted = raw.get("inverted", False)
    if image.mode == "F":
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):  # also where one of them is not a number
            raise RangeError(
                f"floating-point pixels from {low:.6g} to {high:.6g}, where black is 0 and white is 1; "
                "convert it to that range or to 8 or 16 bits"
            )
        grey = np.rint(values * np.float32(255)).astype(np.uint8)
        done.append("floating point")
    else:
        # Mode I of 16 bits: Pillow stretches PGM and PPM files to all of them.
        wide = raw.get("format") not in ("PPM", "PNG") if image.mode == "I" else False
        if wide:
            low, high = int(values.min()), int(values.max())
            bits = raw.get("bits", 32)
            raise RangeError(
                f"whole numbers of {bits} bits, from {low} to {high}, none of which is white by any rule; "
                "convert it to 8 bits, or to 16 bits without sign"
            )
        white = 2 ** raw["bits"] - 1 if "bits" in raw and 8 < raw["bits"] < 16 else 65535
        grey = ((values.astype(np.uint32).clip(0, white) * 255 + white // 2) // white).astype(np.uint8)
        done.append("more than 8 bits")
    return Image.fromarray(255 - grey if inverted else grey)


def _mask(image: Image.Image, raw: dict[str, Any]) -> Image.Image | None:
    """Opacity (L) of an image in which one colour counts as transparent; None where there is no such colour."""
    key = image.info.get("transparency")
    if key is None or image.mode not in ("1", "L", "I", "I;16", "RGB"):
        return None
    values, raw_mode = np.asarray(image), raw.get("raw_mode")
    if image.mode == "RGB":
        if raw_mode == "RGB;16B":  # of 16 bits Pillow keeps the upper eight
            key = tuple(value >> 8 for value in key)
        shows = (values != np.array(key)).any(axis=2)
    elif image.mode == "1":
        shows = values != bool(key)
    else:
        shows = values != (key * 255 // _SCALE[raw_mode] if raw_mode in _SCALE else key)
    return Image.fromarray(shows.astype(np.uint8) * 255)


def _to_srgb(image: Image.Image, profile: bytes | None, done: list[str]) -> Image.Image:
    if image.mode == "LAB":
        return _applied(_lab(), image)
    if image.mode not in _COLOURS:
        image = image.convert("RGB")  # 1, P, YCbCr, HSV, RGBX
    if profile:
        transform, note = _transform(profile, image.mode)
        done += [note] if note else []
        if transform is not None:
            return _applied(transform, image)
    return image.convert("RGB")


def _applied(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None, "only a change in place returns nothing"
    return converted


@functools.lru_cache(maxsize=32)  # the photographs of one camera share a profile
def _transform(profile: bytes, mode: str) -> tuple[Any, str | None]:
    """(the way to sRGB, or None where the profile changes nothing; a word for the log)."""
    try:
        opened = ImageCms.getOpenProfile(io.BytesIO(profile))
        if opened.profile.xcolor_space != _COLOURS[mode]:
            return None, "unfit colour profile ignored"
        intent = ImageCms.Intent(ImageCms.getDefaultIntent(opened))
        transform = ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB", intent)
        probe = _probe(mode)
        changed = np.asarray(ImageCms.applyTransform(probe, transform)).astype(int) - np.asarray(probe.convert("RGB"))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None, "damaged colour profile ignored"
    return (None, None) if np.abs(changed).max() <= SRGB_TOLERANCE else (transform, "colour profile")


def _probe(mode: str) -> Image.Image:
    """Colours from all over the cube, 17 steps a channel."""
    steps = np.linspace(0, 255, 17).round().astype(np.uint8)
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    axes = np.meshgrid(*[steps if mode == "RGB" else steps[::4]] * len(mode), indexing="ij")
    return Image.fromarray(np.stack([axis.reshape(1, -1) for axis in axes], axis=2), mode)


@functools.cache
def _lab() -> Any:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
