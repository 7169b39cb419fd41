"""Whether the trackers of each run can be used: their packages, and the keys that they need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from promptecho.config import ExperimentConfig, run_training
from promptecho.config.trackers import TrackerSection
from promptecho.doctor.finding import Finding, fine, warning
from promptecho.doctor.preflight import JOBS, Preflight
from promptecho.envs.spec import pinned
from promptecho.errors import ConfigError


def tracker_troubles(config: ExperimentConfig, environment: Path | None = None) -> dict[str, list[str]]:
    """What is wrong with a tracker, with the fix -> the runs that have it.

    Args:
        environment: the file of training's own environment, where it has one; None: it has this Python's packages.
    """
    found: dict[str, list[str]] = {}
    for run in config.runs:
        for entry in run_training(config, run).trackers:
            if problem := _not_there(entry, environment) or entry.missing():
                found.setdefault(f"tracker {entry.name}: {problem}", []).append(run)
    return found


def _not_there(entry: TrackerSection, environment: Path | None) -> str:
    try:
        kind = entry.tracker
    except ConfigError as error:  # of a resolved configuration, whose plugin is no longer there
        return str(error)
    if environment is None:
        return kind.not_installed()
    package = kind.package
    if not package or package in pinned(environment):
        return ""
    return f"{environment} does not list the package {package}: add it where it can be (docs/trackers.md)"


def trackers(preflight: Preflight) -> Iterator[Finding]:
    """Of runs that are to be trained. A training goes on without a tracker that fails, so that these are warnings."""
    if not preflight.names("train"):
        return
    config, file = preflight.config, preflight.environments / "train.yaml"
    profile = preflight.profile
    apart = preflight.envs is not None or (profile is not None and (profile.conda or profile.images))
    names = dict.fromkeys(entry.name for run in config.runs for entry in run_training(config, run).trackers)
    troubles = tracker_troubles(config, file if apart and file.is_file() else None)
    for told, runs in troubles.items():
        name, what, *fix = told.split(": ", 2)
        when = f"{JOBS['train']} of {', '.join(runs)}: it trains, and this tracker gets nothing"
        yield warning(f"{name}: {what}", when, "; or ".join([*fix, "take it out of training.trackers"]))
    if names and not troubles:
        yield fine(f"trackers: {', '.join(names)}")
