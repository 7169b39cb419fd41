r"""A table as LaTeX (`booktabs`) that goes into a paper as it is.

What does not fit into the text's width is set in 8 points instead of 9; what then does not fit is split into several
blocks below each other. The narrowest of the common classes (article, llncs) decides; where it needs blocks and a page
of two columns does not, both are in the file and TeX takes what fits. Widths are estimated (latex_text.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from promptecho.tables.latex_text import breakable, escape_latex, text_width, wrapped
from promptecho.tables.table import Cell, Column, Table, heading, number, parts

# Points: of article at 10 pt the text of one column is 345 wide and 550 high; of two columns 469, one of which is 229.
NARROW, WIDE, COLUMN = 340.0, 465.0, 226.0
HEIGHT = 505.0  # of a float without its caption
SPACE = 3.0  # beside each column
# At 10 pt \small and \footnotesize; those of larger classes would be too wide.
SIZES = {9.0: r"\fontsize{9}{11}\selectfont", 8.0: r"\fontsize{8}{9.5}\selectfont"}
SCRIPT, NOTE = 6.0, 8.0  # points of intervals and, at most, \scriptsize
HEAD, LABEL, LABEL_NOTE, CELL_NOTE = 7, 20, 28, 12  # characters in a line
FIRST = ("overall", "delta", "seeds", "seed_sd", "net")


@dataclass(frozen=True)
class _TableLayout:
    """How a table is set: `blocks` of each grid; `at` puts a run's step below its name."""

    points: float
    at: bool
    short: bool
    titles: list[str] = field(default_factory=list)
    blocks: list[list[list[Column]]] = field(default_factory=list)

    def broken(self) -> int:
        """How many blocks there are because of the width."""
        return sum(map(len, self.blocks)) - len(self.blocks)


@dataclass(frozen=True)
class _Piece:
    """What is not split; `title` stands above where the piece is the `first` of its grid or of a float."""

    lines: list[str]
    height: float
    title: str = ""
    first: bool = False

    def shows_title(self, at_top: bool) -> bool:
        return bool(self.title) and (self.first or at_top)


def to_latex(table: Table, short: bool = False) -> str:
    r"""Floats with rules of `\usepackage{booktabs}`: limits of intervals as sub- and superscripts, notes below.

    `short` leaves out intervals, notes of values (p) and most footnotes, and is a `table` of one column where it fits
    into one of a two-column page. Counts that are the same in every row are given in the notes instead of columns.
    Warnings are in the notes.
    """
    lines = [r"% Needs \usepackage{booktabs} in the preamble."]
    column = _layout(table, short, COLUMN) if short else None
    narrow = _layout(table, short, NARROW)
    wide = _layout(table, short, WIDE) if narrow.broken() else narrow
    if column and not column.broken():
        lines += _floats(table, column, "table", COLUMN)
    elif wide.broken() < narrow.broken():
        width = max(_width(table, block, wide) for blocks in wide.blocks for block in blocks)
        lines += [rf"\ifdim\textwidth>{width:.0f}pt % text of two columns", *_floats(table, wide, "table*", WIDE)]
        lines += [r"\else % narrower text: in blocks", *_floats(table, narrow, "table*", NARROW), r"\fi"]
    else:
        lines += _floats(table, narrow, "table*", NARROW)
    return "\n".join(lines) + "\n"


def _floats(table: Table, layout: _TableLayout, kind: str, width: float) -> Iterator[str]:
    pieces = [
        piece
        for title, blocks in zip(layout.titles, layout.blocks, strict=True)
        for index, block in enumerate(blocks)
        for piece in _tabulars(table, block, layout, title, not index)
    ]
    label = f"tab:{re.sub('[^A-Za-z0-9._-]', '-', table.name)}{'-short' if layout.short else ''}"
    for page, found in enumerate(_pages([*pieces, *_notes(table, layout.short, width)])):
        yield rf"\begin{{{kind}}}"
        yield rf"\centering{SIZES[layout.points]}"
        yield rf"\setlength{{\tabcolsep}}{{{SPACE:g}pt}}\renewcommand{{\arraystretch}}{{1.2}}"
        yield from [r"\addtocounter{table}{-1}"] if page else []
        yield rf"\caption{{{breakable(table.title)}{' (continued)' if page else ''}}}"
        yield r"\smallskip" if page else rf"\label{{{label}}}\smallskip"
        for index, piece in enumerate(found):
            yield from [r"\par\medskip"] if index else []
            yield from [rf"\textit{{{breakable(piece.title)}}}\par\smallskip"] if piece.shows_title(not index) else []
            yield from piece.lines
        yield rf"\end{{{kind}}}"


def _same(table: Table) -> dict[str, float]:
    """Columns of counts -> the count that all rows have that have one."""
    found: dict[str, float] = {}
    for column in table.columns:
        cells = [row[column.key] for row in table.rows if column.key in row]
        values = {cell.value for cell in cells if cell.value is not None}
        if column.decimals == 0 and not (column.interval or column.best) and len(values) == 1:
            found[column.key] = values.pop()
    return found


# --- the layout


def _layout(table: Table, short: bool, limit: float) -> _TableLayout:
    """The layout with the fewest blocks; of these that with the largest letters and the fewest lines."""
    same = _same(table)
    grids = [(title, [c for c in columns if c.key not in same]) for title, columns in table.grids()]
    grids = [(title, columns) for title, columns in grids if any(c.decimals is not None for c in columns)]
    found = []
    for points in SIZES:
        for at in (False, True):
            layout = _TableLayout(points, at, short, [title for title, _ in grids])
            layout.blocks.extend(_blocks(table, columns, layout, limit) for _, columns in grids)
            found.append(layout)
    return min(found, key=_TableLayout.broken)


def _blocks(table: Table, columns: Sequence[Column], layout: _TableLayout, limit: float) -> list[list[Column]]:
    """The columns in as many blocks as the width asks for, each behind the text columns, as even as can be; where they
    are several, what counts most is in the first."""
    lead = [column for column in columns if column.decimals is None]
    rest = [column for column in columns if column.decimals is not None]
    widths = {column.key: _column_width(table, column, layout) for column in columns}
    room = limit - sum(widths[column.key] for column in lead) + 2 * SPACE
    if len(_fill(rest, widths, room)) > 1:
        rest.sort(key=lambda column: column.key.rpartition(".")[2] not in FIRST)
    least = len(_fill(rest, widths, room))
    while room > 1 and len(_fill(rest, widths, room - 1)) == least:
        room -= 1
    return [[*lead, *block] for block in _fill(rest, widths, room)]


def _fill(columns: Sequence[Column], widths: dict[str, float], room: float) -> list[list[Column]]:
    blocks: list[list[Column]] = [[]]
    for column in columns:
        if blocks[-1] and sum(widths[c.key] for c in [*blocks[-1], column]) > room:
            blocks.append([])
        blocks[-1].append(column)
    return blocks


def _width(table: Table, columns: Sequence[Column], layout: _TableLayout) -> float:
    return sum(_column_width(table, column, layout) for column in columns) - 2 * SPACE


def _column_width(table: Table, column: Column, layout: _TableLayout) -> float:
    """Numbers and limits are columns of their own: the widest of both need not be in one row."""
    widths = [text_width(line, layout.points) for line in _head(column)]
    mains, limits = [], [0.0]
    for row in table.rows:
        cell = table.cell(row, column)
        main, notes = _texts(cell, column, layout)
        mains += [text_width(line, layout.points, cell.highlight) for line in main]
        limits += [text_width(limit, SCRIPT) + 1 for limit in _limits(cell, column, layout)]
        widths += [text_width(line, NOTE) for line in notes]
    return max([*widths, max(mains, default=0.0) + max(limits)]) + 2 * SPACE


# --- lines


def _head(column: Column) -> list[str]:
    return wrapped(heading(column), HEAD, 14)


def _limits(cell: Cell, column: Column, layout: _TableLayout) -> list[str]:
    """(low, high) as printed, or nothing."""
    if layout.short or not column.interval or cell.value is None or cell.low is None or cell.high is None:
        return []
    return [number(cell.low, column), number(cell.high, column)]


def _texts(cell: Cell, column: Column, layout: _TableLayout) -> tuple[list[str], list[str]]:
    """A cell's lines, and the small lines below them."""
    main, _ = parts(cell, column)
    if column.decimals is not None:
        return [main], [] if layout.short else wrapped(cell.note, CELL_NOTE, CELL_NOTE) if cell.note else []
    name, at, step = main.partition(" @ ") if layout.at else (main, "", "")
    lines = wrapped(name, LABEL, LABEL) + ([f"@ {step}"] if at else [])
    return lines, wrapped(cell.note, LABEL_NOTE, LABEL_NOTE) if cell.note else []


def _tabulars(
    table: Table, columns: Sequence[Column], layout: _TableLayout, title: str, first: bool
) -> Iterator[_Piece]:
    """The rows of a block in as many tabulars as pages have to be filled."""
    paired = [any(_limits(table.cell(row, c), c, layout) for row in table.rows) for c in columns]
    heads = [[_across(escape_latex(line), pair) for line in _head(c)] for c, pair in zip(columns, paired, strict=True)]
    head = _beside([[_across("", pair)] * (max(map(len, heads)) - len(cell)) + cell
                    for cell, pair in zip(heads, paired, strict=True)], paired)  # fmt: skip
    rows = []
    for row in table.rows:
        cells = [_lines(table.cell(row, c), c, layout, pair) for c, pair in zip(columns, paired, strict=True)]
        rows.append(_beside(cells, paired))
    sides = ["l" if c.decimals is None else "r@{}l" if pair else "r" for c, pair in zip(columns, paired, strict=True)]
    line = 1.2 * (layout.points + 2)
    chunks: list[list[list[str]]] = [[]]
    for texts in rows:
        if chunks[-1] and line * (len(head) + 4 + sum(len(one) + 0.2 for one in [*chunks[-1], texts])) > HEIGHT:
            chunks.append([])
        chunks[-1].append(texts)
    for index, chunk in enumerate(chunks):
        body = [r"\addlinespace[2pt]"] * any(len(row) > 1 for row in rows)
        body = [text for row in chunk for text in [*body, *row]][len(body) :]
        lines = [rf"\begin{{tabular}}{{@{{}}{''.join(sides)}@{{}}}}", r"\toprule", *head, r"\midrule", *body]
        height = line * (len(head) + 1.3 * bool(title) + sum(len(row) + 0.1 for row in chunk)) + 16
        yield _Piece([*lines, r"\bottomrule", r"\end{tabular}"], height, title, first and not index)


def _lines(cell: Cell, column: Column, layout: _TableLayout, pair: bool) -> list[str]:
    main, notes = _texts(cell, column, layout)
    below = [_across(rf"\scriptsize {escape_latex(line)}", pair) for line in notes]
    if column.decimals is None:
        bold = [rf"\textbf{{{escape_latex(line)}}}" if cell.highlight else escape_latex(line) for line in main]
        return bold + below
    value = re.sub("^-", "$-$", escape_latex(main[0])) if cell.value is not None else escape_latex(main[0])
    value = rf"\textbf{{{value}}}" if cell.highlight else value
    limits = _limits(cell, column, layout)
    script = f"$_{{{limits[0]}}}^{{{limits[1]}}}$" if limits else ""
    return [f"{value} & {script}".rstrip() if pair else value, *below]


def _across(text: str, pair: bool) -> str:
    return (rf"\multicolumn{{2}}{{c}}{{{text}}}" if text else "&") if pair else text


def _beside(cells: Sequence[list[str]], paired: Sequence[bool]) -> list[str]:
    """The cells' lines beside each other, the first ones in one line, further ones close below."""
    n = max(map(len, cells))
    padded = [cell + [_across("", pair)] * (n - len(cell)) for cell, pair in zip(cells, paired, strict=True)]
    lines = [re.sub(" +", " ", " & ".join(line)).strip() for line in zip(*padded, strict=True)]
    return [*(rf"{line} \\[-2pt]" for line in lines[:-1]), rf"{lines[-1]} \\"]


# --- notes and pages


def _notes(table: Table, short: bool, width: float) -> list[_Piece]:
    counts = _counts(table)
    scripted = any(cell.low is not None for row in table.rows for cell in row.values()) and not short
    notes = table.short_notes or table.footnotes if short else table.footnotes
    texts = [
        *notes[:1],
        *(["Small figures beside a value are the limits of its interval."] if scripted else []),
        *notes[1:],
        *([f"The same in every row that has them: {counts}."] if counts else []),
    ]
    told = [rf"\textbf{{Warning:}} {breakable(text)}." for text in table.warnings] + [breakable(text) for text in texts]
    if not told:
        return []
    height = 11 * sum(text_width(text, 8.0) / width + 0.1 for text in [*table.warnings, *texts]) + 20
    return [_Piece([r"\begin{minipage}{\linewidth}\footnotesize", *told, r"\end{minipage}"], height)]


def _counts(table: Table) -> str:
    """What columns that are the same in every row would say; by panel where panels have the same labels."""
    labels = {column.key: column.label for column in table.columns}
    same = {key: f"{labels[key]} {value:.0f}" for key, value in _same(table).items()}
    if len({labels[key] for key in same}) == len(same):
        return ", ".join(same.values())
    found = {title: ", ".join(same[c.key] for c in columns if c.key in same) for title, columns in table.grids()}
    return "; ".join(f"{title}: {told}" for title, told in found.items() if told)


def _pages(pieces: Sequence[_Piece]) -> list[list[_Piece]]:
    """The pieces of each float."""
    pages: list[list[_Piece]] = [[]]
    for piece in pieces:
        if pages[-1] and sum(one.height for one in pages[-1]) + piece.height > HEIGHT:
            pages.append([])
        pages[-1].append(piece)
    *_, before, last = [[], *pages]
    if len(last) == 1 and len(before) > 1 and before[-1].height + last[0].height <= HEIGHT:
        last.insert(0, before.pop())  # notes don't stand alone
    return pages
