"""The prompts of a sample grid, word by word, on the images of every checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from promptecho.figures.samples import CheckpointImages, Choice, Key, told
from promptecho.files import write_json
from promptecho.images import load_image
from promptecho.reading.page import ReadImage, ReadRow, about_lines, write_words
from promptecho.reading.scales import verdict_text
from promptecho.rewards.echo import words
from promptecho.rewards.echo.words import TokenReward, read_words


def write_sample_words(
    columns: Sequence[CheckpointImages], chosen: Choice, echo: TokenReward, stem: Path, *, blank: str,
    labels: Mapping[str, str] | None = None, image_set: str = "",
) -> list[Path]:  # fmt: skip
    """Write NAME.html, and NAME.json with its numbers; returns their paths.

    A row has one prompt's images, one of each checkpoint; changes are from blank images, and from the first column's.

    Args:
        stem: path of NAME; the name may contain dots.
        blank: as `read_words` takes it.
        labels: what is read instead of the prompts, by prompt id.
        image_set: whose images these are, for the numbers.

    Raises:
        DataError: an image cannot be read, or the disk is full or not writable.
        RewardError: a value is not finite.
    """
    pairs = [(column, key) for key in chosen.keys for column in columns]
    images = [load_image(column.images[key].path, fix="delete it and rerun the generation") for column, key in pairs]
    texts = [column.images[key].prompt if labels is None else labels[key[0]] for column, key in pairs]
    readings = read_words(echo, images, texts, [key[0] for _, key in pairs], blank=blank)
    rows, width = [], len(columns)
    for start, key in zip(range(0, len(pairs), width), chosen.keys, strict=True):
        row = [
            ReadImage(
                f"{columns[k].label}{_verdict(columns[k], key)}",
                images[start + k],
                readings[start + k],
                readings[start] if k else None,
            )
            for k in range(width)
        ]
        side = f", {chosen.sides[key]}" if key in chosen.sides else ""
        rows.append(ReadRow(f"{key[0]}{side}", row))
    page, numbers = (stem.with_name(f"{stem.name}.{kind}") for kind in ("html", "json"))
    base = columns[0].label if width > 1 else ""
    about = about_lines(echo.vlm.path, echo.query, blank)
    write_words(page, "Samples, word by word", rows, about=[chosen.title, *about], base=base, pixels=320)
    facts = words.told(readings).facts
    read = [facts[start : start + width] for start in range(0, len(facts), width)]
    asked = {"query": echo.query, "reduction": echo.reduction, "include_eos": echo.include_eos, "blank": blank}
    write_json(numbers, told(columns, chosen) | asked | {"image_set": image_set, "read": read})
    return [page, numbers]


def _verdict(column: CheckpointImages, key: Key) -> str:
    """What the benchmark says of the image, in words; empty where it has not judged it."""
    if key not in column.verdicts:
        return ""
    return f": {verdict_text(column.verdicts[key], column.difference)}"
