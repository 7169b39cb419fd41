"""What plugins for `--logger` learn of a Slurm job beyond Snakemake's own events: when it stops waiting and runs."""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable

from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.common import LogEvent

from . import identity
from .task import Task

_SURELY_TOLD_S = 10.0
REMOTE_STATE, REMOTE_VERSION = "remote_job_state", 2  # as snakesee reads it


def note_start(one: Task) -> None:
    """Look whether it runs. Looked at before the ends of others are: none begins before the end that made room."""
    if one.node is None:
        with contextlib.suppress(OSError):
            one.node = one.started.read_text().partition("\n")[0]


def tell_of_start(job, one: Task, logger) -> None:
    """Once per Slurm job that runs, with Snakemake's event for it.

    The event of the same name that Snakemake itself sends is of the moment at which it chooses a job to be submitted.
    """
    if one.node is None or one.told:
        return
    one.told = True
    event = {
        "event": LogEvent.JOB_STARTED,
        "jobs": [single.jobid for single in identity.single_jobs(job)],
        "quietness": Quietness.PROGRESS,
    }
    logger.info(f"Slurm job {one.job_id} runs on {one.node}: {one.label}", extra=event)
    tell_remote_state(job, one, logger, "running", "RUNNING", started_at=time.time())


def tell_remote_state(job, one: Task, logger, phase: str, status: str, **times: float) -> None:
    """Slurm's id and state of a job, for log handlers that look for such a record; nobody else sees it.

    One record for each job of a group. Ends are not told: Snakemake has events of its own for them.
    """
    for single in identity.single_jobs(job):
        told = {
            "schema_version": REMOTE_VERSION,
            "jobid": single.jobid,
            "executor": "submitit",
            "phase": phase,
            "external_jobid": one.job_id,
            "remote_status": status,
            "queued_at": one.submission.time,
            "attempt": 1 + one.requeues_used,
            **times,
        }
        logger.debug(f"Slurm job {one.job_id} is {phase}: {one.label}", extra={REMOTE_STATE: told})


class EndsTold:
    """Which of the jobs that ended well log handlers have heard of.

    The executor reports an end in one thread, and Snakemake tells log handlers of it later in another, when it gets
    there. The start of a job for which that end made room must not be told before.
    """

    def __init__(self, is_finished: Callable[[object], bool]):
        self._is_finished = is_finished  # in Snakemake's graph, where a job gets directly after its end was told
        self._untold: deque = deque()  # in the order of reporting, which is that of telling
        self._reported = 0
        self._recorded: dict[object, float] = {}  # when, by job; Snakemake tells of it directly afterwards

    def report(self, job) -> None:
        self._untold.append(job)
        self._reported += 1

    def record(self, job, outcome: str) -> None:
        """Called in Snakemake's thread directly before it tells of the end, or once an output was found missing."""
        self._recorded[job] = time.monotonic() if outcome == "success" else -math.inf

    def include_those_of(self, one: Task) -> bool:
        """Whether all ends are told that were reported up to the first look at which it ran."""
        if one.ends_before is None:
            one.ends_before = self._reported
        while self._untold and self._is_told(self._untold[0]):
            self._recorded.pop(self._untold.popleft(), None)
        return self._reported - len(self._untold) >= one.ends_before

    def _is_told(self, job) -> bool:
        if all(self._is_finished(single) for single in identity.single_jobs(job)):
            return True
        # It has failed after all, or a checkpoint has put another object in its place in the graph.
        recorded = self._recorded.get(job)
        return recorded is not None and time.monotonic() - recorded > _SURELY_TOLD_S
