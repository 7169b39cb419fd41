"""Prompts whose words are coloured by how a VLM reads them on an image: the numbers behind the page, and its scales."""

from __future__ import annotations

import base64
import bisect
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from promptecho.files import write_text
from promptecho.reading.template import render
from promptecho.rewards.echo.words import Reading, ReadWord

# Where one colour ends and the next begins, in nats. A word below the last but one of LOG_PROB has a probability of at
# most 2 %; changes count in both directions.
LOG_PROB = (-0.1, -0.5, -1.0, -2.0, -4.0, -8.0)
CHANGE = (0.25, 1.0, 2.0, 4.0)
SMALL = 128  # an image whose sides are no longer than that is shown with its pixels as they are


@dataclass(frozen=True)
class ReadImage:
    """One image of the page: what it is called, the image, and how a prompt reads on it.

    `base` is the same prompt's reading on the image that this one is compared with.
    """

    name: str
    image: Image.Image
    reading: Reading
    base: Reading | None = None


@dataclass(frozen=True)
class ReadRow:
    """Images beside each other below a common heading, which may be empty."""

    heading: str
    images: Sequence[ReadImage]


def write_words(path: Path, title: str, rows: Sequence[ReadRow], *, about: Sequence[str] = (), base: str = "",
                pixels: int = 480) -> None:  # fmt: skip
    """Write one HTML page that needs nothing else: no server, no script, no font.

    Args:
        about: what was asked and of which model, a line each.
        base: name of what `ReadImage.base` are readings of.
        pixels: longest side of an image in the file.

    Raises:
        DataError: the disk is full or not writable.
    """
    changes = any(image.reading.change is not None for row in rows for image in row.images)
    text = render(
        title=title,
        about=[clean(line) for line in about],
        base=base,
        changes=changes,
        log_prob_legend=_log_prob_legend(),
        change_legend=_change_legend(),
        rows=[
            {"heading": clean(row.heading), "images": [_image(image, base, pixels) for image in row.images]}
            for row in rows
        ],
    )
    write_text(path, text + "\n")


def about_lines(vlm: str, query: str, blank: str) -> list[str]:
    """What stands above the words: which model was asked what, and what changes are measured from."""
    return [f"Read by: {vlm}. Question: {query}", f"Blank images: {blank}, each of the image's size."]


def clean(text: str) -> str:
    """A text that a file can hold: bytes of a file name that are no UTF-8 become question marks."""
    return text.encode("utf-8", "replace").decode()


def number(value: float, *, sign: bool = False) -> str:
    """With two digits and a real minus; never a negative zero."""
    text = f"{value + 0.0:{'+' if sign else ''}.2f}"
    return text.replace("-0.00", "0.00").replace("+0.00", "0.00").replace("-", "−")


def log_prob_step(value: float) -> int:
    """Which colour: 0 for a word that was to be expected, up to `len(LOG_PROB)`."""
    return sum(value < edge for edge in LOG_PROB)


def change_step(value: float) -> int:
    """Which colour: 0 where nothing changes, positive where the word becomes likelier."""
    step = bisect.bisect_right(CHANGE, abs(value))
    return step if value > 0 else -step


def _log_prob_legend() -> list[tuple[str, str]]:
    """Class and meaning of each colour, the least likely first."""
    edges = [number(edge).rstrip("0").rstrip(".") for edge in LOG_PROB]
    chances = [_percent(edge) for edge in LOG_PROB]
    told = [f"above {edges[0]} (likelier than {chances[0]})"]
    told += [f"{high} to {low}" for high, low in zip(edges, edges[1:], strict=False)]
    told.append(f"below {edges[-1]} (less likely than {chances[-1]})")
    return [(f"p{step}", text) for step, text in enumerate(told)][::-1]


def _percent(log_prob: float) -> str:
    return f"{100 * math.exp(log_prob):.2g} %"


def _change_legend() -> list[tuple[str, str]]:
    """Class and meaning of each colour, from much less likely to much likelier."""
    edges = [f"{edge:g}" for edge in CHANGE]
    more = [f"+{low} to +{high}" for low, high in zip(edges, edges[1:], strict=False)] + [f"above +{edges[-1]}"]
    less = [f"−{high} to −{low}" for low, high in zip(edges, edges[1:], strict=False)] + [f"below −{edges[-1]}"]
    here = f"−{edges[0]} to +{edges[0]}"
    steps = range(len(CHANGE), 0, -1)
    return [(f"c{-step}", less[step - 1]) for step in steps] + [("c0", here)] + [
        (f"c{step}", more[step - 1]) for step in reversed(steps)
    ]  # fmt: skip


def _image(shown: ReadImage, base: str, pixels: int) -> dict[str, Any]:
    reading = shown.reading
    words = [_word(word, other) for word, other in zip(reading.words, _others(shown), strict=True)]
    parts: list[dict[str, Any]] = []
    at = 0
    for word, told in zip(reading.words, words, strict=True):
        parts += [{"plain": clean(reading.label[at : word.start])}, told]
        at = word.end
    parts.append({"plain": clean(reading.label[at:])})
    totals = [f"reward {number(reading.reward)} ({reading.reduction} of {reading.tokens} tokens)"]
    totals.append(f"sum {number(reading.log_prob)}" if reading.reduction == "mean" else f"mean {number(reading.mean)}")
    if reading.change is not None:
        totals.append(f"from blank {number(reading.change, sign=True)}")
    if shown.base is not None:
        totals.append(f"from {base} {number(reading.log_prob - shown.base.log_prob, sign=True)}")
    return {
        "name": clean(shown.name),
        "small": max(shown.image.size) <= SMALL,
        "width": shown.image.width,
        "height": shown.image.height,
        "data": data_url(shown.image, pixels),
        "parts": parts,
        "words": words,
        "totals": totals,
        "based": shown.base is not None,
    }


def _others(shown: ReadImage) -> Sequence[ReadWord | None]:
    return [None] * len(shown.reading.words) if shown.base is None else shown.base.words


def _word(word: ReadWord, other: ReadWord | None) -> dict[str, Any]:
    """What the template shows of a word; numbers are texts already."""
    tokens = "  ".join(
        f"{clean(token)!r} {number(value)}" for token, value in zip(word.tokens, word.log_probs, strict=True)
    )
    told: dict[str, Any] = {
        "text": clean(word.text) or "(end)",
        "log_prob": number(word.log_prob),
        "chance": _percent(word.log_prob),
        "classes": [f"p{log_prob_step(word.log_prob)}"],
        "tokens": tokens,
    }
    if word.change is not None and word.blank_log_prob is not None:
        told |= {"blank": number(word.blank_log_prob), "change": number(word.change, sign=True)}
        told["classes"].append(f"c{change_step(word.change)}")
    if other is not None:
        difference = word.log_prob - other.log_prob
        told |= {"base": number(difference, sign=True)}
        told["classes"].append(f"b{change_step(difference)}")
    return told


def data_url(image: Image.Image, pixels: int) -> str:
    """The image in the page itself, no longer than `pixels`: a small one as it is, a larger one as JPEG."""
    image = image.convert("RGB")
    small = max(image.size) <= SMALL
    image.thumbnail((pixels, pixels))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG" if small else "JPEG", **({} if small else {"quality": 88}))
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
