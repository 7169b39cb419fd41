"""Find what a figure is made of: in an experiment's folder, or in files that are named one by one."""

from __future__ import annotations

from pathlib import Path

from promptecho.config.benchmarks import benchmark_named
from promptecho.errors import DataError
from promptecho.figures.samples import CheckpointImages, read_column
from promptecho.scores import read_scores
from promptecho.tables.collect import ScoreFile, find_score_files, read_score_files
from promptecho.train.metrics import Row, find_runs, read_run, read_segment


def read_curve_sources(sources: list[Path], benchmark: str) -> list[ScoreFile]:
    """Score files from folders results/E and from files scores/B/R/N.json.

    Raises:
        DataError: a source is missing or damaged, or there are no scores.
    """
    paths = find_score_files(sources, benchmark)
    files = read_score_files(paths, read_scores(paths[0]).provenance.scorer)
    for file in files:
        if file.scores.provenance.benchmark != benchmark:
            raise DataError(f"{file.path}: scores of {file.scores.provenance.benchmark}, not of {benchmark}")
    return files


def read_training_sources(sources: list[Path]) -> tuple[str, dict[str, list[Row]]]:
    """The experiment's name and the rows by run, from folders results/E and files runs/R/N/metrics.jsonl.

    Raises:
        DataError: a source is missing or damaged, or they are of several experiments.
    """
    metrics: dict[str, dict[int, Row]] = {}
    experiments: dict[str, Path] = {}
    folders = [path for path in sources if path.name != "metrics.jsonl"]
    for path in folders:
        experiments[path.absolute().name] = path
        for run in find_runs(path):
            metrics.setdefault(run, {}).update({row["iteration"]: row for row in read_run(path, run).rows})
    for path in sorted((path for path in sources if path not in folders), key=_step):
        run = path.absolute().parts[-3]
        experiments[path.absolute().parts[-5]] = path
        metrics.setdefault(run, {}).update({row["iteration"]: row for row in read_segment(path)})
    if len(experiments) > 1:
        told = ", ".join(f"{name} ({path})" for name, path in experiments.items())
        raise DataError(f"rows of several experiments: {told}; draw one figure for each")
    return next(iter(experiments), ""), {run: [rows[i] for i in sorted(rows)] for run, rows in sorted(metrics.items())}


def _step(path: Path) -> tuple[str, int]:
    """Run and checkpoint of .../runs/R/N/metrics.jsonl.

    Raises:
        DataError: the path is not of that kind.
    """
    parts = path.absolute().parts
    if len(parts) < 5 or parts[-4] != "runs" or not parts[-2].isdigit():
        raise DataError(f"{path}: expected .../runs/RUN/STEP/metrics.jsonl, the path says whose rows these are")
    return parts[-3], int(parts[-2])


def read_columns(folders: list[Path], scores: Path | None) -> list[CheckpointImages]:
    """Image folders results/E/images/R/N/SET with the verdicts in results/E/scores/B/R/N.json.

    A benchmark that compares each image with the baseline's has no scores of the baseline: its column has no verdicts.

    Raises:
        DataError: a folder lists no images, or a score file is missing or damaged.
    """
    columns = []
    for folder in folders:
        run, step = folder.absolute().parts[-3:-1]
        verdicts = None
        if scores is not None:
            path = scores / run / f"{step}.json"
            verdicts = path if path.exists() or not _pairwise(scores) else None
        columns.append(read_column(folder, verdicts))
    return columns


def _pairwise(scores: Path) -> bool:
    found = sorted(scores.glob("*/[0-9]*.json"))
    return bool(found) and benchmark_named(read_scores(found[0]).provenance.scorer).pairwise
