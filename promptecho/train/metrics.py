"""The rows of a run: one JSON object per iteration, from finished segments and from the one that is running.

    results/E/runs/R/N/metrics.jsonl               a finished segment (from checkpoint to checkpoint)
    results/E/work/train/R/N/DIGEST/live.jsonl     a segment under way; DIGEST is that of the training's configuration

Imports nothing heavy: watching a run must not load torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptecho.config.reruns import REPLACED
from promptecho.errors import DataError
from promptecho.files import read_jsonl

Row = dict[str, Any]


@dataclass(frozen=True)
class RunMetrics:
    """Rows of one run by increasing iteration.

    `finished` are the checkpoints whose segment is complete. `live` is the checkpoint that a segment under way leads
    to, `last_write` the time of its newest row (seconds since the epoch); both None where no segment is under way.
    """

    run: str
    rows: list[Row]
    finished: list[int]
    live: int | None = None
    last_write: float | None = None

    @property
    def iteration(self) -> int:
        """Completed iterations."""
        return self.rows[-1]["iteration"] if self.rows else 0

    def series(self, key: str) -> list[tuple[int, float]]:
        """(iteration, value) wherever a row has `key`."""
        return series(self.rows, key)


def series(rows: list[Row], key: str) -> list[tuple[int, float]]:
    """(iteration, value) of the rows that have `key`: not every metric is measured at every iteration."""
    return [(row["iteration"], float(row[key])) for row in rows if row.get(key) is not None]


def find_runs(experiment: Path) -> list[str]:
    """Names of the runs that have started, sorted; those that were moved aside do not count.

    Raises:
        DataError: there is no such folder.
    """
    if not experiment.is_dir():
        raise DataError(f"{experiment}: no such folder; give an experiment's results, such as results/shapes")
    folders = [*experiment.glob("runs/*"), *experiment.glob("work/train/*")]
    names = {folder.name for folder in folders if folder.is_dir()}
    return sorted(name for name in names if not name.startswith(".") and REPLACED not in name)


def read_run(experiment: Path, run: str) -> RunMetrics:
    """All rows of a run. A finished segment's row wins over a live one, a later row over an earlier one.

    What a changed configuration left behind is passed over: live files of another digest than the newest, or older
    than a finished segment; and finished segments that lie beyond the one under way.

    Raises:
        DataError: a file holds anything but rows (names file and line); a last line still being written is no error.
    """
    found = [path for path in experiment.glob(f"runs/{run}/[0-9]*/metrics.jsonl") if path.parent.name.isdecimal()]
    segments = {int(path.parent.name): path for path in found}  # not somebody's copy, such as 4.bak
    live = {}
    for path in experiment.glob(f"work/train/{run}/[0-9]*/*/live.jsonl"):
        written = _written(path) if path.parents[1].name.isdecimal() else None
        if written is not None and int(path.parents[1].name) not in segments:
            live[path] = written
    newest = max(live, key=live.__getitem__, default=None)
    under_way = None
    if newest is not None:
        under_way = int(newest.parents[1].name)
        ended = [_written(path) for path in segments.values()]
        if any(written is not None and written > live[newest] for written in ended):
            under_way = None  # a segment ended after it: an earlier configuration left it behind
        else:
            segments = {step: path for step, path in segments.items() if step < under_way}
    merged: dict[int, Row] = {}
    if newest is not None and under_way is not None:
        same = [path for path in live if path.parent.name == newest.parent.name]
        for path in sorted(same, key=lambda path: int(path.parents[1].name)):
            if int(path.parents[1].name) <= under_way:
                merged |= {row["iteration"]: row for row in read_live(path)}
    for _, path in sorted(segments.items()):
        merged |= {row["iteration"]: row for row in read_segment(path)}
    return RunMetrics(
        run=run,
        rows=[merged[iteration] for iteration in sorted(merged)],
        finished=sorted(segments),
        live=under_way,
        last_write=live[newest] if newest is not None and under_way is not None else None,
    )


def read_segment(path: Path) -> list[Row]:
    """Rows of a finished segment's metrics.jsonl.

    Raises:
        DataError: missing, or a line is no row (names file and line).
    """
    return [_checked(row, f"{path}: row {number}") for number, row in enumerate(read_jsonl(path), start=1)]


def read_live(path: Path) -> list[Row]:
    """Rows of a live file, in increasing order; [] if it has just been removed.

    A resumed segment repeats iterations: a row takes back all earlier ones from its iteration on. The last line
    may be torn, because the trainer is writing it; it is then left for the next look.

    Raises:
        DataError: any other line is not a row (names file and line).
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            if number == len(lines):  # no newline behind it yet
                break
            raise DataError(
                f"{path}:{number}: not valid JSON ({error}); delete the file, the trainer goes on"
            ) from None
        row = _checked(row, f"{path}:{number}")
        while rows and rows[-1]["iteration"] >= row["iteration"]:
            rows.pop()
        rows.append(row)
    return rows


def _checked(row: Any, where: str) -> Row:
    iteration = row.get("iteration") if isinstance(row, dict) else None
    if type(iteration) is not int or iteration < 0:
        raise DataError(f"{where}: not a row of training metrics: no iteration in it")
    return row


def _written(path: Path) -> float | None:
    """Time of the last change; None if the file has just been removed."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None
