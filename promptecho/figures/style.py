"""What all figures share: colours that colour-blind people tell apart, and files that are equal byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from promptecho.files import atomic_path

# Okabe and Ito, "Color Universal Design" (2008), without the yellow that is faint on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ("-", "--", ":", "-.")  # the second six curves are dashed, and so on
BASE_COLOR = "#555555"
RIGHT, WRONG, FAILED = COLORS[2], COLORS[1], "#999999"

_STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "pdf.fonttype": 42,
}
# Neither time nor version of the library goes into the file.
_METADATA = {"png": {"Software": None}, "pdf": {"Creator": None, "Producer": None, "CreationDate": None}}


@contextmanager
def style() -> Iterator[None]:
    """The same look whatever matplotlibrc says; figures are made and saved inside it."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def save(figure: Figure, path: Path, dpi: int = 150) -> None:
    """Write a PNG or PDF, by the path's suffix, atomically and with the same bytes every time.

    Raises:
        DataError: the disk is full or not writable.
    """
    kind = path.suffix.removeprefix(".")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=dpi, metadata=_METADATA[kind])


def line_style(index: int) -> dict[str, str]:
    """Colour and dashes of the curve number `index`."""
    return {"color": COLORS[index % len(COLORS)], "linestyle": LINES[index // len(COLORS) % len(LINES)]}


def label_ends(axes: Axes, ends: list[tuple[str, float, str]], gap: float = 0.075) -> None:
    """Write labels right of the axes at the height of their curves' ends, moved apart where they would overlap.

    Args:
        ends: (text, y of the curve's end, colour).
        gap: smallest distance of two labels as a share of the axes' height.
    """
    low, high = axes.get_ylim()
    places = sorted(((y - low) / (high - low), text, color) for text, y, color in ends)
    at: list[float] = []
    for place, _, _ in places:  # upwards from the lowest, each clear of the one below
        at.append(max(place, at[-1] + gap) if at else max(0.0, place))
    top = 1.0
    for index in reversed(range(len(at))):  # back down where that went beyond the top
        at[index] = min(at[index], top)
        top = at[index] - gap
    for y, (_, text, color) in zip(at, places, strict=True):
        axes.annotate(text, (1.02, y), xycoords="axes fraction", color=color, va="center", fontsize=8)
