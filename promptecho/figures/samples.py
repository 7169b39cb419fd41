"""The same prompts from the same noise, checkpoint by checkpoint, from images that the workflow has generated.

An image's noise is a function of the image set's seed, its prompt and its index, so one row of the figure differs by
the weights alone. Prompts are spread evenly over the set, not chosen by eye.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from promptecho.errors import DataError
from promptecho.figures.style import FAILED, RIGHT, WRONG, save, style
from promptecho.files import read_jsonl
from promptecho.images import load_image
from promptecho.scores import ScoreItem, read_scores

Key = tuple[str, int]  # prompt id, image index

PIXELS = 256  # longest side of an image in the figure
MAX_TEXT = 300  # characters of a prompt


@dataclass(frozen=True)
class Listed:
    """One generated image."""

    prompt: str
    path: Path


@dataclass(frozen=True)
class Column:
    """All images of one checkpoint, and their verdicts where they have been scored."""

    label: str
    images: dict[Key, Listed]
    verdicts: dict[Key, ScoreItem] = field(default_factory=dict)


def read_column(folder: Path, scores: Path | None = None) -> Column:
    """Read the listings of an image folder, results/E/images/R/N/SET, and the score file of the same checkpoint.

    Raises:
        DataError: no listing, an image twice, or scores of another checkpoint.
    """
    folder = folder.absolute()
    run, step = folder.parts[-3:-1]
    images: dict[Key, Listed] = {}
    for listing in sorted(folder.glob("shards/*.jsonl")):
        for row in read_jsonl(listing):
            try:
                key, listed = (row["prompt_id"], row["image_index"]), Listed(row["prompt"], folder / row["filename"])
            except KeyError as error:
                raise DataError(f"{listing}: a row without {error}; generate the images again") from None
            if key in images:
                raise DataError(f"{listing}: prompt {key[0]}, image {key[1]} is listed twice; generate again")
            images[key] = listed
    if not images:
        raise DataError(f"{folder}: no shards/*.jsonl that lists images; generate them first")
    verdicts = {}
    if scores is not None:
        read = read_scores(scores)
        if (read.provenance.run, str(read.provenance.step)) != (run, step):
            told = f"{read.provenance.run} at {read.provenance.step}"
            raise DataError(f"{scores}: scores of {told}, the images are of {run} at {step}")
        verdicts = {(item.prompt_id, item.image_index): item for item in read.items}
    return Column(run if step == "0" else f"{run} @ {step}", images, verdicts)


def choose(columns: list[Column], n: int, image_index: int = 0) -> list[Key]:
    """`n` prompts (or all, if fewer), evenly spread over the first column's, ordered by id; the same image of each.

    Raises:
        DataError: an image is missing in a column, or belongs to another prompt there.
    """
    ids = sorted({prompt_id for prompt_id, index in columns[0].images if index == image_index})
    if not ids:
        raise DataError(f"{columns[0].label}: no images with index {image_index}")
    n = min(n, len(ids))
    keys = [(ids[(2 * k + 1) * len(ids) // (2 * n)], image_index) for k in range(n)]
    check(columns, keys)
    return keys


def check(columns: list[Column], keys: list[Key]) -> None:
    """See choose."""
    for key in keys:
        for column in columns:
            if key not in column.images:
                raise DataError(f"{column.label}: prompt {key[0]}, image {key[1]} is missing; generate all shards")
            if column.images[key].prompt != columns[0].images[key].prompt:
                raise DataError(
                    f"{column.label}: prompt {key[0]} is {column.images[key].prompt!r}, but "
                    f"{columns[0].images[key].prompt!r} in {columns[0].label}; generate both from one prompt set"
                )


def thin(columns: list[Column], most: int) -> list[Column]:
    """At most `most` columns: the first, the last and an even choice between them."""
    if len(columns) <= most:
        return columns
    return [columns[k * (len(columns) - 1) // (most - 1)] for k in range(most)]


def write_rows(columns: list[Column], keys: list[Key], path: Path) -> None:
    """A row per prompt: its text, then its image at each checkpoint.

    Raises:
        DataError: an image cannot be read.
    """
    with style():
        width, size = 2.1, 1.25
        figure = Figure(figsize=(width + size * len(columns), (size + 0.04) * len(keys) + 0.4), layout="constrained")
        grid = figure.add_gridspec(len(keys), 1 + len(columns), width_ratios=[width / size] + [1] * len(columns))
        for row, key in enumerate(keys):
            text = figure.add_subplot(grid[row, 0])
            text.axis("off")
            wrapped = _wrapped(columns[0].images[key].prompt, 30, 9)
            text.text(1, 0.5, wrapped, transform=text.transAxes, ha="right", va="center", fontsize=7)
            for place, column in enumerate(columns):
                axes = figure.add_subplot(grid[row, 1 + place])
                _show(axes, column, key)
                if row == 0:
                    axes.set_title(column.label.replace(" @ ", "\n@ "), fontsize=7, loc="center")
        save(figure, path)


def write_stacked(columns: list[Column], keys: list[Key], path: Path, across: int) -> None:
    """Prompts side by side, `across` in a band; below each other the images of the checkpoints.

    Raises:
        DataError: an image cannot be read.
    """
    with style():
        bands = -(-len(keys) // across)
        figure = Figure(figsize=(1.75 * across, bands * (1.75 * len(columns) + 0.6)), layout="constrained")
        grid = figure.add_gridspec(bands * len(columns), across)
        for number, key in enumerate(keys):
            band, slot = divmod(number, across)
            for line, column in enumerate(columns):
                axes = figure.add_subplot(grid[band * len(columns) + line, slot])
                _show(axes, column, key)
                if line == 0:
                    axes.set_title(_wrapped(column.images[key].prompt, 26, 4), fontsize=8, loc="center")
                if slot == 0:
                    axes.set_ylabel(column.label, fontsize=9)
        save(figure, path, dpi=110)


def _show(axes: Axes, column: Column, key: Key) -> None:
    """One image in a frame of its verdict's colour, which a mark repeats for those who cannot tell the colours."""
    image = load_image(column.images[key].path, fix="delete it and rerun the generation")
    image.thumbnail((PIXELS, PIXELS))
    axes.imshow(image)
    axes.grid(False)
    axes.set(xticks=[], yticks=[])
    item = column.verdicts.get(key)
    mark, color = _verdict(item)
    for spine in axes.spines.values():
        spine.set(visible=item is not None, color=color, linewidth=2.5)
    if mark:
        box = {"boxstyle": "square,pad=0.15", "facecolor": color, "edgecolor": "none"}
        axes.text(
            0.97, 0.97, mark, transform=axes.transAxes, ha="right", va="top", color="white", fontsize=7, bbox=box
        )  # fmt: skip


def _verdict(item: ScoreItem | None) -> tuple[str, str]:
    if item is None:
        return "", FAILED
    if item.outcome is None:
        return "failed", FAILED
    if item.outcome in (0.0, 1.0):
        return ("✓", RIGHT) if item.outcome else ("✗", WRONG)
    return f"{item.outcome:.2f}", RIGHT if item.outcome >= 0.5 else WRONG


def _wrapped(text: str, width: int, lines: int) -> str:
    return "\n".join(textwrap.wrap(text[:MAX_TEXT], width, max_lines=lines, placeholder=" …")).replace("$", r"\$")
