"""Answers to the questions of gallery.py, from the objects or the texts that the gallery's oracles find in an image."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from promptecho.benchmarks.tiif.forms import Sight, WorldOracle, object_rules
from promptecho.gallery.captions import SAID_SIZES, SAID_TEXTURES
from promptecho.gallery.glyphs import ALPHABET
from promptecho.gallery.look_oracle import WELL_FORMED, detect_things
from promptecho.gallery.scenes import SIZES
from promptecho.gallery.text_oracle import read_poster
from promptecho.gallery.words import LONGEST
from promptecho.shapes.world import COLORS

if TYPE_CHECKING:
    from PIL import Image

_SAID = {"size": SAID_SIZES, "texture": SAID_TEXTURES, "color": COLORS}
_TEXT = re.compile(rf"Is the text '(?P<word>[{ALPHABET}]{{1,{LONGEST}}})' in the image\?")


def read_words(image: Image.Image) -> tuple[str, ...]:
    """The words of a poster, in whichever role."""
    return tuple(word for _, word in read_poster(image).poster.texts)


def _written(match: re.Match, words: tuple[str, ...]) -> bool:
    return match["word"] in words


GALLERY_ORACLE = WorldOracle(
    name="the gallery's oracle",
    world="the gallery",
    command="promptecho shapes tiif --world gallery",
    sights=(
        Sight(detect_things, object_rules(_SAID, lambda thing: thing.look, WELL_FORMED, SIZES)),
        Sight(read_words, ((_TEXT, _written),)),
    ),
)
