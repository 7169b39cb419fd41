"""What all figures share: the widths of a paper's columns, colours that colour-blind people tell apart, and files with
the same bytes every time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

import matplotlib
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.typing import LineStyleType, RcKeyType

from promptecho.files import atomic_path

SINGLE, DOUBLE = 3.3, 6.9  # inches: one column of a paper, and both
PAGE = 9.0  # inches: a figure that is higher fits on no page

# Okabe and Ito, "Color Universal Design" (2008), without the yellow that is faint on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES: tuple[LineStyleType, ...] = ("-", "--", ":", "-.")  # the second six curves are dashed, and so on
MARKERS = ("o", "D", "^", "v", "P", "X")
BASE_COLOR = "#555555"
ALARM_COLOR = "#000000"
RIGHT, WRONG, FAILED = COLORS[2], COLORS[1], "#999999"

LEGEND_LETTER = 7 * 0.6 / 72  # inches: a character of the legend, rather too much than too little
SMALLEST = 6  # points; what is smaller can't be read in print
_STYLE: dict[RcKeyType, object] = {
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "pdf.fonttype": 42,  # text stays text, which publishers ask for
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


def save(figure: Figure, path: Path, dpi: int = 300) -> None:
    """Write a PNG or PDF, by the path's suffix, atomically and with the same bytes every time.

    Raises:
        DataError: the disk is full or not writable.
    """
    kind = path.suffix.removeprefix(".")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=dpi, metadata=_METADATA[kind])


def write_widths(draw: Callable[[float], Figure], stem: Path) -> list[Path]:
    """Draw at both widths: NAME.png and NAME.pdf over two columns, single_column/NAME.pdf in one; returns their paths.

    Args:
        draw: makes the figure for a width in inches.
        stem: path of NAME; the name may contain dots.

    Raises:
        DataError: the disk is full or not writable.
    """
    double = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "pdf")]
    single = [stem.parent / "single_column" / f"{stem.name}.pdf"]
    for width, paths in ((DOUBLE, double), (SINGLE, single)):
        with style():
            figure = draw(width)
            for path in paths:
                save(figure, path)
    return double + single


class Look(TypedDict, total=False):
    """How a line and its points are drawn: arguments of `Line2D` and of `Axes.plot`."""

    color: str
    linestyle: LineStyleType
    linewidth: float  # points, like all sizes here
    alpha: float
    marker: str
    markersize: float
    markerfacecolor: str
    markeredgewidth: float


def line_style(index: int) -> Look:
    """Colour and dashes of the curve number `index`."""
    return {"color": COLORS[index % len(COLORS)], "linestyle": LINES[index // len(COLORS) % len(LINES)]}


def point_style(index: int) -> Look:
    """Colour and marker of the points number `index`; 36 differ, the second six have each colour's next marker."""
    return {"color": COLORS[index % len(COLORS)], "marker": MARKERS[(index + index // len(COLORS)) % len(MARKERS)]}


def legend_below(figure: Figure, handles: Sequence[Artist], width: float) -> None:
    """A legend below all panels, in as many columns as its texts have room for, at most three; the figure grows by its
    height, the panels keep theirs."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(3, len(handles), int(width / (longest * LEGEND_LETTER + 0.55))))
    figure.set_figheight(figure.get_figheight() + 0.15 * -(-len(handles) // columns))
    figure.legend(handles=handles, loc="outside lower left", ncols=columns)


def shortened(name: str, most: int) -> str:
    """A name of at most `most` characters; of a longer one the middle is left out, since runs differ at their ends."""
    if len(name) <= most:
        return name
    head = (most - 1) // 2
    return f"{name[:head]}…{name[len(name) - (most - 1 - head) :]}"
