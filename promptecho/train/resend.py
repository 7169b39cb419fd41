"""Rows of finished segments to a tracker, afterwards: what it missed, or all of them."""

from __future__ import annotations

import sys
from pathlib import Path

from promptecho.config import ExperimentConfig, load_experiment, run_training, slice_digest
from promptecho.config.trackers import TrackerSection
from promptecho.errors import ConfigError, DataError
from promptecho.trackers.feed import TrackerFeed, sent_before, tracker_folder
from promptecho.train.log import told_config
from promptecho.train.metrics import find_runs, read_run

CLOSE_S = 600.0


def newest_configuration(results: Path) -> Path:
    """The newest resolved configuration of `results/E`.

    Raises:
        DataError: there is none.
    """
    files = sorted(results.glob("config/*.yaml"), key=lambda path: (path.stat().st_mtime, path.name))
    if not files:
        raise DataError(f"{results}: no config/DIGEST.yaml; give the experiment file: --config FILE")
    return files[-1]


def chosen_tracker(config: ExperimentConfig, run: str, name: str) -> TrackerSection:
    """The entry of `training.trackers` of that name, or one with its defaults.

    Raises:
        ConfigError: there is no such tracker, or its package is not installed.
    """
    from pydantic import ValidationError

    found = next((entry for entry in run_training(config, run).trackers if entry.name == name), None)
    if found is None:
        try:
            found = TrackerSection(name=name)
        except ValidationError:
            from promptecho.config.tracker_kinds import tracker_kind

            tracker_kind(name)
            raise
    if problem := found.tracker.not_installed() or (found.options.missing() if found.options else ""):
        raise ConfigError(f"tracker {name}: {problem}")
    return found


def resend(results: Path, runs: list[str], name: str, config: Path | None = None, *, anew: bool = False) -> list[str]:
    """Give the rows of finished segments that a tracker has not been given yet to it. Returns a line for each run.

    Args:
        runs: their names; []: all that have begun.
        anew: all rows, as another run.

    Raises:
        ConfigError, DataError: no such run, tracker or configuration, or the tracker failed; one line.
    """
    experiment = load_experiment(config or newest_configuration(results))
    begun = [run for run in find_runs(results) if run in experiment.runs]
    told = []
    for run in runs or begun:
        entry = chosen_tracker(experiment, run, name)
        metrics = read_run(results, run)
        last = max(metrics.finished, default=-1)
        rows = [row for row in metrics.rows if row["iteration"] <= last]
        folder, training = tracker_folder(entry.tracker, results, run), slice_digest(experiment, "train", run=run)
        before = None if anew else sent_before(folder, training)
        start = max(before.row, 0) if before else 0
        missing = [row for row in rows if before is None or row["iteration"] > before.row]
        if missing:
            _send(entry, experiment, run, folder, training, start, missing, anew)
        told.append(f"{run}: {len(missing)} of {len(rows)} rows sent to {name}, files in {folder}")
    return told


def _send(
    entry: TrackerSection, experiment: ExperimentConfig, run: str, folder: Path, training: str, start: int,
    rows: list[dict], anew: bool,
) -> None:  # fmt: skip
    troubles: list[str] = []
    feed = TrackerFeed(
        entry, experiment=experiment.experiment, run=run, folder=folder, training=training, start_iteration=start,
        config=told_config(experiment, run), say=troubles.append, anew=anew,
    )  # fmt: skip
    for row in rows:
        feed.log(row)
    print(f"track {run}: {len(rows)} rows to {entry.name}", file=sys.stderr, flush=True)
    feed.close(CLOSE_S)
    if troubles:
        raise DataError(troubles[0])
