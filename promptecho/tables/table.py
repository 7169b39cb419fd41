"""One Table object, its texts and a terminal print; html.py and latex.py have more. All show the same numbers."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from promptecho.schema import KEY

MISSING = "–"
SCHEMA_VERSION = 1  # of NAME.json; older files have none, and count as this one


@dataclass(frozen=True)
class Column:
    """A column; `decimals` None means text. `signed` prints a plus. `best` marks the column's highest value."""

    key: str
    label: str
    decimals: int | None = 1
    unit: str = ""
    signed: bool = False
    interval: bool = False
    best: bool = False


@dataclass
class Cell:
    """A number with an optional interval, in the column's unit, or a text. `note` follows it. `decimals` replaces the
    column's, for a number that is known to fewer."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    text: str = ""
    note: str = ""
    highlight: bool = False
    decimals: int | None = None


@dataclass(frozen=True)
class Panel:
    """Columns of a wide table that are shown as a grid of their own, each with all rows."""

    title: str
    keys: tuple[str, ...]


@dataclass
class Table:
    """Rows map column keys to cells; an absent key is an empty cell. Where there are `panels`, text columns lead each
    of them; csv and json hold one row with all columns. `short_notes` are what a short form keeps of the footnotes."""

    name: str
    title: str
    columns: list[Column]
    rows: list[dict[str, Cell]]
    footnotes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    panels: list[Panel] = field(default_factory=list)
    short_notes: list[str] = field(default_factory=list)

    def highlight_best(self, significant: Callable[[int, Column], bool]) -> None:
        """Mark the highest value of each `best` column; equal as printed is equally best. All equal: none is.

        Of these only the values for which `significant` (index of the row, column) is true, such as being better than
        the base beyond chance.
        """
        for column in (c for c in self.columns if c.best):
            there = {index: row[column.key] for index, row in enumerate(self.rows) if column.key in row}
            shown = {
                index: float(number(cell.value, column, cell.decimals))
                for index, cell in there.items()
                if cell.value is not None
            }
            for index, value in shown.items():
                best = len(set(shown.values())) > 1 and value == max(shown.values())
                there[index].highlight = best and significant(index, column)

    def cell(self, row: dict[str, Cell], column: Column) -> Cell:
        return row.get(column.key, Cell(text=MISSING))

    def grids(self) -> list[tuple[str, list[Column]]]:
        """(title, columns) of each grid to be shown: the panels, or one untitled grid."""
        if not self.panels:
            return [("", self.columns)]
        lead = [column for column in self.columns if column.decimals is None]
        by_key = {column.key: column for column in self.columns}
        return [(panel.title, lead + [by_key[key] for key in panel.keys]) for panel in self.panels]


def number(value: float, column: Column, decimals: int | None = None) -> str:
    """A value as printed in every format but csv and json."""
    text = f"{value:{'+' if column.signed else ''}.{column.decimals if decimals is None else decimals}f}"
    # -0.0 and a rounded -0.04 read as a loss where there is none
    return text.replace("-", "").replace("+", "") if float(text) == 0 else text


def parts(cell: Cell, column: Column) -> tuple[str, list[str]]:
    """A cell's main text and what follows it (interval, note), as far as it has them."""
    rest = [cell.note] if cell.note else []
    if column.decimals is None or cell.value is None:
        return cell.text or ("" if column.decimals is None else MISSING), rest
    if column.interval and cell.low is not None and cell.high is not None:
        rest.insert(0, f"[{number(cell.low, column)}, {number(cell.high, column)}]")
    return number(cell.value, column, cell.decimals), rest


def heading(column: Column) -> str:
    return f"{column.label} ({column.unit})" if column.unit and column.unit != "%" else column.label


def to_markdown(table: Table) -> str:
    """GitHub Markdown: best values bold, warnings first, a heading above each panel."""

    def escape(text: str) -> str:
        text = re.sub(r"([\\|*_`~]|(?<=\])\()", r"\\\1", text).replace("\n", " ")
        text = re.sub(r"&(?=#?\w+;)", "&amp;", text)
        return re.sub(r"<(?=\S)", "&lt;", text)  # "p < 0.001" is no tag

    lines = [f"# {escape(table.title)}", ""]
    lines += [f"> **WARNING:** {escape(warning)}\n" for warning in table.warnings]
    for title, columns in table.grids():
        lines += [f"## {escape(title)}", ""] if title else []
        lines.append("| " + " | ".join(escape(heading(c)) for c in columns) + " |")
        lines.append("|" + "|".join(" :--- " if c.decimals is None else " ---: " for c in columns) + "|")
        for row in table.rows:
            texts = []
            for column in columns:
                cell = table.cell(row, column)
                main, rest = parts(cell, column)
                main = f"**{escape(main)}**" if cell.highlight else escape(main)
                texts.append(" ".join([main, *map(escape, rest)]).strip())
            lines.append("| " + " | ".join(texts) + " |")
        lines.append("")
    lines += [f"- {escape(note)}" for note in table.footnotes]
    return "\n".join(lines).rstrip() + "\n"


def to_csv(table: Table) -> str:
    """Comma-separated, unrounded; a column with intervals becomes three (KEY, KEY_low, KEY_high), a note one more."""
    header: list[str] = []
    noted = {c.key for c in table.columns if any(table.cell(row, c).note for row in table.rows)}
    for column in table.columns:
        header.append(column.key)
        header += [f"{column.key}_low", f"{column.key}_high"] if column.interval else []
        header += [f"{column.key}_note"] if column.key in noted else []
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    for row in table.rows:
        values: list[Any] = []
        for column in table.columns:
            cell = table.cell(row, column)
            values.append(cell.text if column.decimals is None else cell.value)
            values += [cell.low, cell.high] if column.interval else []
            values += [cell.note] if column.key in noted else []
        writer.writerow(["" if value is None else value for value in values])
    return stream.getvalue()


def to_json(table: Table) -> str:
    """Everything, unrounded."""
    value = {KEY: SCHEMA_VERSION, **asdict(table)}
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def print_rich(table: Table, console: Any = None) -> None:
    """Print to the terminal, intervals under their values.

    Where the terminal is too narrow for one line per row, rows become columns, as many side by side as fit.
    """
    from rich.cells import chop_cells
    from rich.console import Console
    from rich.text import Text

    console = console or Console()
    width = console.width

    def name(text: str) -> str:
        """On as many lines as a column of half the terminal's width takes, so that it stays readable beside numbers."""
        return "\n".join("\n".join(chop_cells(line, max(width // 2, 20))) for line in text.split("\n"))

    def texts(row: dict[str, Cell], columns: list[Column]) -> list[Text]:
        line = []
        for column in columns:
            cell = table.cell(row, column)
            main, rest = parts(cell, column)
            # a run's step goes below its name: names are the widest cells
            main = name(main.replace(" @ ", "\n@ ")) if column.decimals is None else main
            text = Text(main, style="bold green" if cell.highlight else "")
            line.append(text.append("".join(f"\n{part}" for part in rest), style="not bold dim"))
        return line

    console.print(Text(table.title, style="bold"))
    for title, columns in table.grids():
        if title:
            console.print(Text(f"\n{title}", style="bold"))
        head = [Text(heading(column)) for column in columns]
        rows = [texts(row, columns) for row in table.rows]
        blocks = [[head, *rows]]
        if _width(blocks[0]) > console.width:
            blocks = [[head]]
            for row in rows:
                if len(blocks[-1]) > 1 and _width(_turned([*blocks[-1], row])) > console.width:
                    blocks.append([head])
                blocks[-1].append(row)
            blocks = [_turned(block) for block in blocks]
        console.width = max(width, *map(_width, blocks))
        for block in blocks:
            console.print(_rich(block))
        console.width = width
    for warning in table.warnings:
        console.print(Text(f"WARNING: {warning}", style="bold red"))
    for note in table.footnotes:
        console.print(Text(f"- {note}", style="dim"))


def _turned(lines: list[list[Any]]) -> list[list[Any]]:
    return [list(line) for line in zip(*lines, strict=True)]


def _width(lines: list[list[Any]]) -> int:
    """Terminal width of `_rich(lines)` unsqueezed: each column's widest line, two spaces around, one between."""
    columns = _turned(lines)
    return sum(3 + max(part.cell_len for cell in column for part in cell.split("\n")) for column in columns)


def _rich(lines: list[list[Any]]) -> Any:
    import rich.box
    import rich.table

    out = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for index, label in enumerate(lines[0]):
        out.add_column(label, justify="left" if index == 0 else "right", no_wrap=True, vertical="top")
    for line in lines[1:]:
        out.add_row(*line)
    return out
