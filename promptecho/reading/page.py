"""Prompts whose words are coloured by how a VLM reads them on an image: the numbers behind the page, and its scales."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from promptecho.files import write_text
from promptecho.reading.scales import (
    SMALL,
    change_legend,
    change_step,
    clean,
    log_prob_legend,
    log_prob_step,
    number,
    percent,
)
from promptecho.reading.template import render
from promptecho.rewards.echo.words import Reading, ReadWord


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
        log_prob_legend=log_prob_legend(),
        change_legend=change_legend(),
        rows=[
            {"heading": clean(row.heading), "images": [_image(image, base, pixels) for image in row.images]}
            for row in rows
        ],
    )
    write_text(path, text + "\n")


def about_lines(vlm: str, query: str, blank: str) -> list[str]:
    """What stands above the words: which model was asked what, and what changes are measured from."""
    return [f"Read by: {vlm}. Question: {query}", f"Blank images: {blank}, each of the image's size."]


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
        "chance": percent(word.log_prob),
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
