"""Find what a figure is made of: in an experiment's folder, or in files that are named one by one."""

from __future__ import annotations

from pathlib import Path

from promptecho.errors import DataError
from promptecho.figures.samples import Column, read_column
from promptecho.scores import read_scores
from promptecho.tables.collect import ScoreFile, find_score_files, read_score_files
from promptecho.train.metrics import Row, find_runs, read_run, read_segment


def read_curve_sources(sources: list[Path], benchmark: str) -> tuple[list[ScoreFile], dict[str, list[Row]]]:
    """Score files and rows by run, from folders results/E, score files, and files runs/R/N/metrics.jsonl.

    Raises:
        DataError: a source is missing or damaged, or there are no scores.
    """
    metrics: dict[str, dict[int, Row]] = {}
    for path in sources:
        if path.is_dir():
            for run in find_runs(path):
                metrics.setdefault(run, {}).update({row["iteration"]: row for row in read_run(path, run).rows})
    segments = [path for path in sources if path.name == "metrics.jsonl"]
    for path in sorted(segments, key=_step):
        run = path.absolute().parts[-3]
        metrics.setdefault(run, {}).update({row["iteration"]: row for row in read_segment(path)})
    paths = find_score_files([path for path in sources if path.name != "metrics.jsonl"], benchmark)
    files = read_score_files(paths, read_scores(paths[0]).provenance.scorer)
    for file in files:
        if file.scores.provenance.benchmark != benchmark:
            raise DataError(f"{file.path}: scores of {file.scores.provenance.benchmark}, not of {benchmark}")
    return files, {run: [rows[i] for i in sorted(rows)] for run, rows in sorted(metrics.items())}


def _step(path: Path) -> tuple[str, int]:
    """Run and checkpoint of .../runs/R/N/metrics.jsonl.

    Raises:
        DataError: the path is not of that kind.
    """
    parts = path.absolute().parts
    if len(parts) < 4 or parts[-4] != "runs" or not parts[-2].isdigit():
        raise DataError(f"{path}: expected .../runs/RUN/STEP/metrics.jsonl, the path says whose rows these are")
    return parts[-3], int(parts[-2])


def read_columns(folders: list[Path], scores: Path | None) -> list[Column]:
    """Image folders results/E/images/R/N/SET with the verdicts in results/E/scores/B/R/N.json.

    Raises:
        DataError: a folder lists no images, or a score file is missing or damaged.
    """
    columns = []
    for folder in folders:
        run, step = folder.absolute().parts[-3:-1]
        columns.append(read_column(folder, scores / run / f"{step}.json" if scores is not None else None))
    return columns
