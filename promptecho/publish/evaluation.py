"""What a card says of scores: the rows of the experiment's own tables, made from the score files at that moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from promptecho.config import ExperimentConfig
from promptecho.config.guards import guard_paths
from promptecho.config.scorers import max_failed_share
from promptecho.errors import DataError
from promptecho.guard_files import read_guard_files
from promptecho.tables.collect import ScoreFile, find_score_files, read_score_files
from promptecho.tables.guard_columns import Guards
from promptecho.tables.kinds import make_table
from promptecho.tables.show import read_table
from promptecho.tables.table import Cell, Column, Table

Row = Mapping[str, Cell]


def evaluations(results: Path, config: ExperimentConfig, run: str, step: int) -> list[tuple[Table, ScoreFile]]:
    """Of each benchmark that judged this checkpoint: its table with the rows of base model and checkpoint alone, and
    the checkpoint's score file.

    The table is that of `promptecho tables` over the same files. Where the experiment's folder has one already, the two
    must agree.

    Raises:
        DataError: a file is damaged, or a table in the folder is of other scores.
    """
    found = []
    for name in dict.fromkeys([*config.tables, *config.benchmarks]):
        if name not in config.benchmarks or not (results / f"scores/{name}/{run}/{step}.json").is_file():
            continue
        entry = config.benchmarks[name]
        files = read_score_files(find_score_files([results], name), entry.scorer)
        shares = {name: max_failed_share(config, entry)}
        watching = [path for one in guard_paths(config, name) if (path := results / one).is_file()]
        guards = Guards(read_guard_files(watching))
        table = make_table(entry.scorer, files, name=name, max_failure_share=shares, guards=guards)
        mine = next(file for file in files if _place(file) == (run, step))
        labels = ("base", mine.label)
        rows = _rows(table, labels)
        path = results / f"tables/{name}.json"
        if path.is_file() and _numbers(_rows(read_table(path), labels)) != _numbers(rows):
            raise DataError(
                f"{path}: shows other numbers than the scores give now; make it again (snakemake tables, or promptecho "
                f"tables --table {entry.scorer} --benchmark {name} --scores {results} --out {path.parent})"
            )
        found.append((replace(table, rows=rows), mine))
    return found


def _place(file: ScoreFile) -> tuple[str, int]:
    return file.scores.provenance.run, file.scores.provenance.step


def _rows(table: Table, labels: tuple[str, ...]) -> list[dict[str, Cell]]:
    return [row for row in table.rows if row["model"].text in labels]


def _numbers(rows: list[dict[str, Cell]]) -> list[dict[str, Any]]:
    return [{key: (cell.text, cell.value, cell.low, cell.high) for key, cell in row.items()} for row in rows]


def _value(row: Row, column: Column) -> float | None:
    return row[column.key].value if column.key in row else None


def model_index(name: str, found: list[tuple[Table, ScoreFile]]) -> list[dict[str, Any]]:
    """The hub's own record of results: of each benchmark the checkpoint's overall number, as the table shows it."""
    results = []
    for table, file in found:
        row = next((row for row in table.rows if row["model"].text == file.label), {})
        column = next((one for one in table.columns if one.decimals is not None and _value(row, one) is not None), None)
        column = next((one for one in table.columns if one.key == "overall" and _value(row, one) is not None), column)
        if column is None:
            continue
        cell = row[column.key]
        decimals = column.decimals if cell.decimals is None else cell.decimals
        value = round(float(cell.value or 0.0), 1 if decimals is None else decimals)
        results.append(
            {
                "task": {"type": "text-to-image"},
                "dataset": {"name": table.title, "type": table.name},
                "metrics": [{"type": "score", "name": column.label, "value": value}],
            }
        )
    return [{"name": name, "results": results}] if results else []
