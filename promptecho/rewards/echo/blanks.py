"""The colours of blank images. Settings are checked by them, so nothing heavy is imported before it is needed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from promptecho.errors import ConfigError

if TYPE_CHECKING:
    from PIL import Image

BLANK, MEAN = "black,grey,white", "mean"


def blank_colors(blank: str, image: Image.Image) -> list[tuple[int, int, int]]:
    """The colours of the blank images that stand for `image`, each once.

    Raises:
        ConfigError: one is neither `mean` nor a colour.
    """
    return list(dict.fromkeys(_color(part.strip(), image) for part in re.split(r",(?![^(]*\))", blank)))


def check_blank(blank: str) -> None:
    """Whether `read_words` will take it.

    Raises:
        ConfigError: a part is neither `mean` nor a colour.
    """
    from PIL import Image

    blank_colors(blank, Image.new("RGB", (1, 1)))


def _color(name: str, image: Image.Image) -> tuple[int, int, int]:
    from PIL import ImageColor, ImageStat

    if name == MEAN:
        grey = round(ImageStat.Stat(image.convert("L")).mean[0])
        return grey, grey, grey
    try:
        red, green, blue = ImageColor.getrgb(name)[:3]
    except ValueError:
        raise ConfigError(f"blank {name!r}: give {MEAN}, or a colour such as grey, white or #808080") from None
    return red, green, blue
