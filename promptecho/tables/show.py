"""Finished tables in the terminal: what they show, what was gained, and where to look next."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from promptecho.errors import DataError
from promptecho.files import read_json
from promptecho.schema import KEY, read_schema
from promptecho.suggest import maybe
from promptecho.tables.guard_columns import PREFIX
from promptecho.tables.table import SCHEMA_VERSION, Cell, Column, Panel, Table, number, print_rich


@dataclass(frozen=True)
class Gain:
    """What a row of a table has more than the base model or baseline, in the column's unit with its interval."""

    table: str
    model: str
    column: str
    against: str
    value: float
    low: float
    high: float
    note: str
    sentence: str


def read_table(path: Path) -> Table:
    """A table from the NAME.json that `promptecho tables` writes, or wrote before it said its schema version.

    Raises:
        DataError: the file is missing, of a newer schema, or holds anything else (names it).
    """
    value = read_json(path)
    read_schema(path, value, SCHEMA_VERSION, "make it again with `promptecho tables`")
    try:
        return Table(
            **{key: entry for key, entry in value.items() if key != KEY}
            | {
                "columns": [Column(**column) for column in value["columns"]],
                "rows": [{key: Cell(**cell) for key, cell in row.items()} for row in value["rows"]],
                "panels": [Panel(panel["title"], tuple(panel["keys"])) for panel in value.get("panels", ())],
            }
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a table that this version of `promptecho tables` wrote ({error})") from None


def find_tables(sources: Sequence[Path], names: Sequence[str]) -> list[Path]:
    """Tables of the folders results/E (those called `names`, or all, by name), and tables given as files.

    Raises:
        DataError: a folder has no tables, or none of such a name.
    """
    paths: list[Path] = []
    for source in sources:
        if not source.is_dir():
            paths.append(source)
            continue
        found = {path.stem: path for path in sorted((source / "tables").glob("*.json"))}
        if not found:
            raise DataError(
                f"{source}: no tables/*.json in it; make them: snakemake --profile profiles/local --config "
                f"experiments={source.resolve().name} -- tables"
            )
        for name in names:
            if name not in found:
                raise DataError(f"{source}: no table {name!r}; there are: {', '.join(found)}{maybe(name, found)}")
        paths += [found[name] for name in names or found]
    return paths


def gains(table: Table) -> list[Gain]:
    """The gains that a table tells: its signed columns with intervals, of the last checkpoint of each run."""
    columns = [one for one in table.columns if one.signed and one.interval and not one.key.startswith(PREFIX)]
    prompts = next((column for column in table.columns if column.key == "prompts"), None)
    last = {_model(row).partition(" @ ")[0]: row for row in table.rows}
    found = []
    for row in last.values():
        for column in columns:
            cell = table.cell(row, column)
            if cell.value is not None and cell.low is not None and cell.high is not None:
                counted = table.cell(row, prompts).value if prompts else None
                numbers = (cell.value, cell.low, cell.high)
                found.append(_gain(table, _model(row), column, numbers, cell.note, counted))
    return found


def _model(row: dict[str, Cell]) -> str:
    return row["model"].text if "model" in row else ""


def _gain(
    table: Table, model: str, column: Column, numbers: tuple[float, float, float], note: str, prompts: float | None
) -> Gain:
    """`numbers`: a gain, and both ends of its interval."""
    value, low, high = numbers
    against = "base" if "base" in column.label else "the baseline"
    where = f"{table.name} ({column.key.partition('.')[0]} prompts)" if "." in column.key else table.name
    told = f"{number(value, column)} points [{number(low, column)}, {number(high, column)}]"
    more = f", {note}" if note else ""
    n = f"{prompts:.0f} prompts" if prompts else "these prompts"
    if low > 0:
        sentence = f"{where}: {model} gains {told} over {against}{more}"
    elif high < 0:
        sentence = f"{where}: {model} loses {told} against {against}{more}"
    else:
        sentence = f"{where}: {model} has {told} against {against}{more}: no difference that {n} could show"
    return Gain(table.name, model, column.label, against, value, low, high, note, sentence)


def look_next(folder: Path) -> list[tuple[str, str]]:
    """(what, where) of the other results in results/E, as far as they exist."""
    figures = folder / "figures"
    listed = [
        ("all tables", folder / "tables", "*.md"),
        ("training curves", figures, "training.png"),
        ("scores by iteration", figures, "curves_*.png"),
        ("images before and after", figures, "samples_*.png"),
        ("adapters", folder / "runs", "*/*/adapter"),
    ]
    found = [(what, f"{place}/{pattern}") for what, place, pattern in listed if any(place.glob(pattern))]
    pages = [("images prompt by prompt", f"promptecho browse {folder}")] if (folder / "scores").is_dir() else []
    return [*found, *pages, ("one page of all", "snakemake --profile profiles/local --report report.html")]


def print_results(tables: Sequence[Table], folders: Sequence[Path], notes: bool, console: Any = None) -> None:
    """Print tables, the sentences that say what was gained, and where to look next."""
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    console = console or Console(highlight=False)
    for table in tables:
        print_rich(table if notes else replace(table, footnotes=[]), console)
        console.print()
    told = [gain for table in tables for gain in gains(table)]
    if told:
        console.print(Text("What was gained (95 % intervals in brackets)", style="bold"))
        for gain in told:
            console.print(Text(f"- {gain.sentence}", style="green" if gain.low > 0 else ""))
    for folder in folders:
        console.print()
        console.print(Text(f"Where to look next in {folder}", style="bold"))
        grid = Grid.grid(padding=(0, 2))
        for what, where in look_next(folder):
            grid.add_row(Text(what), Text(where, overflow="fold"))
        console.print(grid)


def to_json(tables: Sequence[Table]) -> str:
    """The gains of the tables."""
    return json.dumps([asdict(gain) for table in tables for gain in gains(table)], indent=2, ensure_ascii=False)
