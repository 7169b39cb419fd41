"""Whether the trackers of each run can be used: their packages, and the keys that they need."""

from __future__ import annotations

from collections.abc import Iterator

from promptecho.config import ExperimentConfig, run_training
from promptecho.doctor.finding import Finding, fine, unchecked, warning
from promptecho.doctor.preflight import JOBS, Preflight


def tracker_troubles(config: ExperimentConfig, *, packages: bool = True) -> dict[str, list[str]]:
    """What is wrong with a tracker, with the fix -> the runs that have it. `packages`: those of this Python, too."""
    found: dict[str, list[str]] = {}
    for run in config.runs:
        for entry in run_training(config, run).trackers:
            problem = entry.tracker.not_installed() if packages else ""
            problem = problem or (entry.options.missing() if entry.options is not None else "")
            if problem:
                found.setdefault(f"tracker {entry.name}: {problem}", []).append(run)
    return found


def trackers(preflight: Preflight) -> Iterator[Finding]:
    """Of runs that are to be trained. A training goes on without a tracker that fails, so that these are warnings."""
    if not preflight.names("train"):
        return
    config = preflight.config
    apart = preflight.envs is not None or (preflight.profile is not None and preflight.profile.conda)
    names = dict.fromkeys(entry.name for run in config.runs for entry in run_training(config, run).trackers)
    if apart and names:
        told = f"packages of the trackers ({', '.join(names)}): jobs run in environments of their own, not with this Python"
        yield unchecked(told, JOBS["train"], "see that the one of training has them (docs/trackers.md)")
    troubles = tracker_troubles(config, packages=not apart)
    for told, runs in troubles.items():
        what, _, fix = told.rpartition(": ")
        when = f"{JOBS['train']} of {', '.join(runs)}: it trains, and this tracker gets nothing"
        yield warning(what, when, f"{fix}; or take it out of training.trackers")
    if names and not troubles and not apart:
        yield fine(f"trackers: {', '.join(names)}")
