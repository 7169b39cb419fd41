"""Rows of finished segments to a tracker, afterwards: what it missed, or all of them."""

from __future__ import annotations

import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from promptecho.config import ExperimentConfig, load_experiment, run_training, slice_digest
from promptecho.config.reruns import SLICE, state_digests
from promptecho.config.resolved import resolved_files
from promptecho.config.tracker_kinds import tracker_kind
from promptecho.config.trackers import TrackerSection
from promptecho.errors import ConfigError, DataError
from promptecho.files import read_json
from promptecho.phases import Phase
from promptecho.trackers.feed import TrackerFeed, sent_before, tracker_folder
from promptecho.train.log import told_config
from promptecho.train.metrics import find_runs, read_run
from promptecho.train.watchdog import Position

CLOSE_S = 600.0
QUIET_S = 600.0  # a process of another machine that moved within that time is taken to run


def trained_digest(results: Path, run: str, steps: list[int]) -> str | None:
    """The digest of the configuration that the newest readable one of these checkpoints was trained with."""
    found = (state_digests(results / "runs" / run / str(step)).get(SLICE) for step in sorted(steps, reverse=True))
    return next(filter(None, found), None)


def trained_configuration(results: Path, run: str, digest: str | None) -> ExperimentConfig:
    """The newest resolved configuration of `results/E` whose training of this run has the digest.

    Raises:
        DataError: there is none.
    """
    for file in reversed(resolved_files(results)):
        with suppress(ConfigError):  # of an earlier version
            config = load_experiment(file)
            if run in config.runs and slice_digest(config, "train", run=run) == digest:
                return config
    told = "its checkpoints say no digest" if digest is None else f"digest {digest}"
    raise DataError(
        f"{results}: no config/*.yaml is what run {run} was trained with ({told}); give the experiment file: --config "
        "FILE"
    )


def refuse_live(results: Path, run: str) -> None:
    """Nothing, unless the run is being trained.

    Raises:
        DataError: it is: its own process gives rows to trackers, and two would write one record.
    """
    for file in results.glob(f"work/train/{run}/*/*/ranks/0.json"):
        try:
            position, age = Position(**read_json(file)), time.time() - file.stat().st_mtime
        except (DataError, OSError, TypeError):
            continue
        here = position.host == socket.gethostname()
        if position.phase != Phase.END and (Path(f"/proc/{position.pid}").exists() if here else age < QUIET_S):
            raise DataError(
                f"{results}: run {run} is being trained ({position.host}, pid {position.pid}, last sign {age:.0f} s "
                "ago); wait for its end, or stop it with `promptecho stop`. If no such process runs any more, delete "
                f"{file}"
            )


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
            tracker_kind(name)
            raise
    if problem := found.tracker.not_installed() or found.missing():
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
    begun, told = find_runs(results), []
    if unknown := [run for run in runs if run not in begun]:
        raise DataError(f"{results}: run {unknown[0]} has not begun (begun: {', '.join(begun) or 'none'})")
    given = None if config is None else load_experiment(config)
    for run in runs or [run for run in begun if given is None or run in given.runs]:
        metrics = read_run(results, run)
        last = max(metrics.finished, default=-1)
        rows = [row for row in metrics.rows if row["iteration"] <= last]
        if not rows:
            told.append(f"{run}: no segment is finished, nothing is sent to {name}")
            continue
        digest = trained_digest(results, run, metrics.finished)
        experiment = given or trained_configuration(results, run, digest)
        entry = chosen_tracker(experiment, run, name)
        told += _send(entry, experiment, run, results, digest, rows, anew)
    return told


def _send(
    entry: TrackerSection, experiment: ExperimentConfig, run: str, results: Path, digest: str | None, rows: list[dict],
    anew: bool,
) -> list[str]:  # fmt: skip
    folder = tracker_folder(entry.tracker, results, run)
    training = digest or slice_digest(experiment, "train", run=run)
    before = sent_before(folder, training)
    if anew and before is not None and before.images >= 0 and entry.tracker.takes_back:
        raise DataError(
            f"{folder}: --anew would take back its images, which are not kept elsewhere; move this folder away first"
        )
    before = None if anew else before
    reached = -1 if before is None else max(before.row, before.images if entry.tracker.takes_back else -1)
    missing = [row for row in rows if row["iteration"] > reached]
    troubles: list[str] = []
    if missing:
        refuse_live(results, run)
        feed = TrackerFeed(
            entry, experiment=experiment.experiment, run=run, folder=folder, training=training,
            start_iteration=rows[-1]["iteration"], config=told_config(experiment, run), say=troubles.append, anew=anew,
            earlier=missing,
        )  # fmt: skip
        print(f"track {run}: {len(missing)} rows to {entry.name}", file=sys.stderr, flush=True)
        feed.close(CLOSE_S)
        if feed.failed:
            raise DataError(troubles[-1])
    sent = f"{run}: {len(missing)} of {len(rows)} rows sent to {entry.name}, files in {folder}"
    return [*troubles, sent]
