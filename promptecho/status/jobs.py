"""What is told of jobs that run, wait or have ended badly."""

from __future__ import annotations

import shlex
from pathlib import Path

from promptecho.status.failures import last_line
from promptecho.status.job_list import JobList
from promptecho.status.kinds import JobStatus, WaitingStatus
from promptecho.status.rates import progress_of
from promptecho.status.standing import PENDING, JobStanding, JobStandings


def running_job(standing: JobStanding, listed: JobList | None) -> JobStatus:
    """With how far it is, by the last line of its log, and whether it will be done in time."""
    told = _job(standing)
    told.progress = None if standing.log is None else progress_of(standing.log)
    if told.progress is not None and told.progress.rate > 0:
        told.seconds_left = (told.progress.total - told.progress.done) / told.progress.rate
    told.limit = limit_of(standing, told.seconds_left, listed)
    return told


def _job(standing: JobStanding) -> JobStatus:
    return JobStatus(
        standing.job.label,
        standing.state,
        standing.reason,
        standing.slurm,
        standing.node,
        standing.elapsed,
        standing.limit,
        start=standing.start,
        log="" if standing.log is None else _from_here(standing.log),
    )


def _from_here(path: Path) -> str:
    """As somebody here would write it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def limit_of(standing: JobStanding, seconds_left: float | None, listed: JobList | None) -> str:
    """What will happen at the time limit; empty where it is not reached, or nothing is known."""
    if standing.limit is None or standing.elapsed is None or seconds_left is None:
        return ""
    if standing.elapsed + seconds_left <= standing.limit:
        return ""
    asked = {} if listed is None else listed.rules.get(standing.job.rule, {})
    most = asked.get("requeue_limit", None if listed is None else listed.requeue_limit)
    if not asked.get("resumable") or most is None:
        return "will reach its limit"
    if standing.requeues >= most:
        return f"will reach its limit, and all {most} requeues are used"
    return f"will reach its limit, requeue {standing.requeues + 1} of {most}"


def failed_job(standing: JobStanding, listed: JobList | None) -> JobStatus:
    """With the last line of its log, and the command that makes it alone again."""
    told = _job(standing)
    told.last_line = "" if standing.log is None else last_line(standing.log)
    if listed is not None:
        told.command = shlex.join([*listed.command, "--", standing.job.key])
    return told


def waiting_jobs(standings: JobStandings) -> list[WaitingStatus]:
    """By reason: Slurm's first, then what most of them wait for."""
    found: dict[str, WaitingStatus] = {}
    for standing in standings.jobs:
        if standing.state == PENDING:
            told = found.setdefault(standing.reason, WaitingStatus(standing.reason, 0, standing.job.label))
            told.jobs += 1
            if standing.start is not None and (told.start is None or standing.start < told.start):
                told.start = standing.start
    return sorted(found.values(), key=lambda one: (not one.reason.startswith("Slurm"), -one.jobs))
