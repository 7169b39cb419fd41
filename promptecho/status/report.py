"""`promptecho status`: all that is known of an experiment, as numbers. The parts are in kinds.py, and
what is shown of them in blocks.py.

Snakemake   results/E/work/jobs (what is planned), .snakemake (what has begun, its log), results/E/timings
Slurm       squeue, sacct, the executor's log folder
trainer     metrics.jsonl and live.jsonl of the runs
others      the last lines of jobs' logs, the journals of judges
"""

from __future__ import annotations

import shlex
import time
from collections import defaultdict
from pathlib import Path

from promptecho.errors import DataError, PromptEchoError
from promptecho.status.hours import hours_of
from promptecho.status.job_list import JobList, read_job_list
from promptecho.status.jobs import failed_job, running_job, waiting_jobs
from promptecho.status.judges import judges_of
from promptecho.status.kinds import ExperimentStatus
from promptecho.status.rules import rules_of
from promptecho.status.runs import run_status
from promptecho.status.standing import DONE, FAILED, INTERRUPTED, RUNNING, JobStandings, stand
from promptecho.status.timings import JobTiming, read_timing, read_timings
from promptecho.train.watch import chosen_runs


def look(results: Path, now: float | None = None) -> ExperimentStatus:
    """How results/E stands. Reads only.

    Raises:
        DataError: no such folder, or a damaged file in it.
    """
    now = time.time() if now is None else now
    if not results.is_dir():
        raise DataError(f"{results}: no such folder; give an experiment's results, such as results/shapes")
    listed = read_job_list(results)
    standings = JobStandings([]) if listed is None else stand(listed, now)
    timings = _timings(results, listed, standings)
    try:
        runs = [
            run_status(results, metrics, total, listed, standings, now) for metrics, total in chosen_runs(results, [])
        ]
    except PromptEchoError as error:  # the rest is to be seen all the same
        runs, unread = [], [f"runs can't be read: {error}"]
    else:
        unread = []
    running = [running_job(one, listed) for one in standings.jobs if one.state == RUNNING]
    return ExperimentStatus(
        experiment=str(results),
        time=now,
        snakemake=_snakemake(listed),
        command="" if listed is None else shlex.join([*listed.command, *_targets(listed)]),
        notes=[*_notes(results, listed), *standings.notes, *unread],
        rules=rules_of(listed, standings, timings, running),
        runs=runs,
        running=running,
        waiting=waiting_jobs(standings),
        failed=[failed_job(one, listed) for one in standings.jobs if one.state in (FAILED, INTERRUPTED)],
        judges=judges_of(results),
        hours=hours_of(listed, standings, timings, runs),
    )


def _targets(listed: JobList) -> list[str]:
    return ["--", *listed.targets] if listed.targets else []


def _snakemake(listed: JobList | None) -> str:
    if listed is None:
        return "unknown"
    return {True: "running", False: "not running", None: f"started on {listed.host}"}[listed.alive]


def _notes(results: Path, listed: JobList | None) -> list[str]:
    """What the list of jobs may not know."""
    if listed is None:
        return ["no list of jobs here (Snakemake writes one when it starts): only what is done is counted"]
    newer = [path for path in results.glob("config/*.yaml") if path.stat().st_mtime > listed.started]
    if any(path.name != listed.config for path in newer):
        return ["the configuration has changed since these jobs were planned; snakemake -n says what would run now"]
    source = listed.root / listed.source if listed.root and listed.source else None
    if source is not None and source.is_file() and source.stat().st_mtime > listed.started:
        return [f"{listed.source} was edited since these jobs were planned; snakemake -n says what would run now"]
    return []


def _timings(results: Path, listed: JobList | None, standings: JobStandings) -> dict[str, list[JobTiming]]:
    """Of finished jobs, by rule."""
    if listed is None or listed.root is None:
        return read_timings(results)
    found: dict[str, list[JobTiming]] = defaultdict(list)
    for one in standings.jobs:
        if one.state == DONE and one.job.timing and (timing := read_timing(listed.root / one.job.timing)) is not None:
            found[one.job.rule].append(timing)
    return found
