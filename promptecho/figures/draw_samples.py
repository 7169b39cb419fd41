"""Draw and write the images that `samples.choose` has chosen: bands of prompts, checkpoints below each other."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from promptecho.figures.page import write_page
from promptecho.figures.samples import CheckpointImages, Choice, Key, thin, told
from promptecho.figures.style import FAILED, PAGE, RIGHT, SMALLEST, WRONG, shortened, write_widths
from promptecho.files import write_json
from promptecho.images import load_image

LINE = SMALLEST * 1.2 / 72  # inches from one line of text to the next
LETTER = SMALLEST * 0.54 / 72  # inches: the mean width of a character, rather too much than too little
MARGIN, GAP = 0.27, 0.05  # inches: for the names of the checkpoints at the left; between images
LEAST = 0.44  # inches: a smaller image shows nothing
LINES = ((0.6, 7), (1.0, 5))  # most lines of a prompt above images narrower than that; 4 above wider ones
PIXELS = 320  # longest side of an image in the file


@dataclass(frozen=True)
class Grid:
    """`across` prompts in a band, which has `rows` images of `cell` inches; `lines[b]` lines of text above band b."""

    across: int
    rows: int
    cell: float
    lines: tuple[int, ...]

    def top(self, band: int) -> float:
        """Inches from the first band's upper edge to that of `band`; of their number: the height of all."""
        return sum(lines * LINE + 0.06 + self.rows * (self.cell + GAP) for lines in self.lines[:band])


def layout(prompts: Sequence[str], rows: int, width: float, head: float) -> Grid:
    """The largest images with which all fits a page; where none does, the smallest.

    Args:
        prompts: their texts, at least one.
        rows: images of each prompt.
        width: of the figure, in inches.
        head: height of the title, in inches.
    """
    grid = None
    for across in range(1, len(prompts) + 1):
        cell = (width - MARGIN) / across - GAP
        if grid is not None and cell < LEAST:
            break
        lines = [len(wrapped(text, cell, _most_lines(cell))) for text in prompts]
        grid = Grid(across, rows, cell, tuple(max(lines[k : k + across]) for k in range(0, len(lines), across)))
        if grid.top(len(grid.lines)) + head <= PAGE and cell <= 1.1:
            break
    assert grid is not None, "there is at least one prompt"
    return grid


def _most_lines(cell: float) -> int:
    return next((lines for below, lines in LINES if cell < below), 4)


def wrapped(text: str, width: float, most: int) -> list[str]:
    """At most `most` lines that are no longer than `width` inches; what has no room is an ellipsis."""
    return textwrap.wrap(text[:400], max(10, int((width - 0.04) / LETTER)), max_lines=most, placeholder=" …")


def draw(columns: Sequence[CheckpointImages], chosen: Choice, width: float) -> Figure:
    """The title with the proportions, then bands of prompts, `width` inches in all.

    Checkpoints for which a page has no room are left out evenly; the first and the last one stay.

    Raises:
        DataError: an image cannot be read.
    """
    title = wrapped_title(chosen.title, width)
    head = len(title) * LINE + 0.1
    prompts = [columns[0].images[key].prompt for key in chosen.keys]
    columns = list(columns)
    while True:
        grid = layout(prompts, len(columns), width, head)
        height = grid.top(len(grid.lines)) + head
        if height <= PAGE or len(columns) <= 2:
            break
        columns = thin(columns, len(columns) - 1)
    figure = Figure(figsize=(width, height))
    figure.text(0.02 / width, 1 - 0.03 / height, "\n".join(title), va="top", fontsize=SMALLEST, linespacing=1.2)
    for number, (key, prompt) in enumerate(zip(chosen.keys, prompts, strict=True)):
        band, slot = divmod(number, grid.across)
        left, top = MARGIN + slot * (grid.cell + GAP), height - head - grid.top(band)
        text = "\n".join(wrapped(prompt, grid.cell, _most_lines(grid.cell))).replace("$", r"\$")
        top -= grid.lines[band] * LINE + 0.02
        figure.text((left + grid.cell / 2) / width, (top + 0.02) / height, text, ha="center", va="bottom",
                    fontsize=SMALLEST, linespacing=1.1)  # fmt: skip
        for row, column in enumerate(columns):
            bottom = top - (row + 1) * grid.cell - row * GAP
            axes = figure.add_axes((left / width, bottom / height, grid.cell / width, grid.cell / height))
            _show(axes, column, key)
            if slot == 0:
                figure.text(
                    (MARGIN - 0.03) / width, (bottom + grid.cell / 2) / height, _row_label(columns, row, grid.cell),
                    rotation=90,
                    ha="right", va="center", multialignment="center", fontsize=SMALLEST, linespacing=1.0,
                )  # fmt: skip
    return figure


def _row_label(columns: Sequence[CheckpointImages], row: int, height: float) -> str:
    """Run and step on two lines; of several checkpoints of one run, which the title names, the step alone."""
    run, _, step = columns[row].label.partition(" @ ")
    if step and len(columns) > 2 and all(column.label.startswith(f"{run} @ ") for column in columns[1:]):
        return f"@ {step}"
    return "\n".join([shortened(run, int(height / LETTER / 1.15)), *([f"@ {step}"] if step else [])])


def wrapped_title(text: str, width: float) -> list[str]:
    return textwrap.wrap(text, int((width - 0.05) / LETTER))


def _show(axes: Axes, column: CheckpointImages, key: Key) -> None:
    """One image in a frame of its verdict's colour, which a mark repeats for readers who cannot distinguish the
    colours."""
    image = load_image(column.images[key].path, fix="delete it and rerun the generation")
    image.thumbnail((PIXELS, PIXELS))
    axes.imshow(image, aspect="auto" if image.width == image.height else "equal")
    axes.grid(False)
    axes.set(xticks=[], yticks=[])
    judged = key in column.verdicts
    mark, color = _verdict(column, key)
    for spine in axes.spines.values():
        spine.set(visible=judged, color=color, linewidth=1.5)
    if mark:
        box = {"boxstyle": "square,pad=0.12", "facecolor": color, "edgecolor": "none"}
        axes.text(
            0.97, 0.97, mark, transform=axes.transAxes, ha="right", va="top", color="white", fontsize=SMALLEST, bbox=box
        )  # fmt: skip


def _verdict(column: CheckpointImages, key: Key) -> tuple[str, str]:
    """Mark and colour."""
    outcome = column.verdicts.get(key)
    if key not in column.verdicts:
        return "", FAILED
    if outcome is None:
        return "failed", FAILED
    if column.difference:
        return {1: ("won", RIGHT), -1: ("lost", WRONG)}.get(int(outcome), ("tie", FAILED))
    if outcome in (0.0, 1.0):
        return ("✓", RIGHT) if outcome else ("✗", WRONG)
    return f"{outcome:.2f}", RIGHT if outcome >= 0.5 else WRONG


def write_samples(columns: Sequence[CheckpointImages], chosen: Choice, stem: Path) -> list[Path]:
    """Write NAME.png, .pdf, .json, .html and single_column/NAME.pdf; returns their paths.

    The JSON and the page have the prompts unabridged, with their ids.

    Raises:
        DataError: an image cannot be read, or the disk is full or not writable.
    """
    paths = write_widths(lambda width: draw(columns, chosen, width), stem)
    numbers = stem.with_name(f"{stem.name}.json")
    write_json(numbers, told(columns, chosen))
    lines = [f"{columns[0].images[key].prompt} ({key[0]}{_word(chosen, key)})" for key in chosen.keys]
    return [*paths, numbers, write_page(paths[0], chosen.title, lines)]


def _word(chosen: Choice, key: Key) -> str:
    return f", {chosen.sides[key]}" if key in chosen.sides else ""
