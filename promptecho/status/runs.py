"""How a training stands."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from promptecho.status.job_list import JobList
from promptecho.status.jobs import limit_of
from promptecho.status.kinds import RunStatus
from promptecho.status.standing import DONE, FAILED, INTERRUPTED, PENDING, RUNNING, JobStandings
from promptecho.train.metrics import RunMetrics
from promptecho.train.stop_file import stop_file_of
from promptecho.train.watch import view


def run_status(
    results: Path, metrics: RunMetrics, total: int | None, listed: JobList | None, standings: JobStandings, now: float
) -> RunStatus:
    """A training at time `now` (seconds since the epoch): its rows, and its segments among the jobs.

    Args:
        total: its iterations, where a configuration tells them.
    """
    segments = [one for one in standings.jobs if one.job.run == metrics.run]
    begun = [now - one.elapsed for one in segments if one.state == RUNNING and one.elapsed is not None]
    if begun and metrics.last_write is not None:  # rows of before are no sign of how a new start gets on
        metrics = replace(metrics, last_write=max(metrics.last_write, *begun))
    shown = view(metrics, total, now)
    states = [one.state for one in segments]
    state = shown.state
    if shown.state != "finished" and segments:
        for worst, word in (
            (RUNNING, "running"),
            (FAILED, "failed"),
            (INTERRUPTED, "interrupted"),
            (PENDING, "waiting"),
        ):
            if worst in states:
                state = "stalled" if worst == RUNNING and shown.state == "stalled" else word
                break
    row = metrics.rows[-1] if metrics.rows else {}
    memory = [value for key, value in row.items() if key.startswith("memory_gb_")]
    reward = shown.metrics.get("reward_mean")
    told = RunStatus(
        run=metrics.run,
        state=state,
        iteration=shown.iteration,
        total=total,
        segments=f"{states.count(DONE)}/{len(states)}" if segments else f"{len(metrics.finished)}",
        reward=None if reward is None else reward.last,
        reward_change=None if reward is None else reward.change,
        images_per_s=row.get("images_per_s"),
        mfu=shown.speed.get("mfu"),
        memory_gb=max(memory, default=None),
        seconds_left=shown.seconds_left,
        seconds_since_row=shown.seconds_since_row,
        stop_asked=os.path.exists(stop_file_of(results, metrics.run)),  # False where it may not be looked for
        warnings=shown.warnings,
    )
    for one in segments:
        if one.state == RUNNING and shown.seconds_per_iteration is not None:
            ahead = max(0, int(one.job.wildcards.get("N", 0)) - shown.iteration) * shown.seconds_per_iteration
            told.limit = limit_of(one, ahead, listed)
    return told
