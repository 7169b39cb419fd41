"""Submits what the cluster takes, keeps the rest, and says so."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence

from . import queue, slurm
from .kept import JobBatch, Kept


class Keeper:
    """Between Snakemake, whose jobs are submitted from its point of view, and a cluster that takes no more now."""

    def __init__(self, submit: Callable, refuse: Callable, logger, remind_s: float):
        self._submit, self._refuse, self.logger, self._remind_s = submit, refuse, logger, remind_s
        self._kept = Kept()
        self._told: float | None = None  # when it was last said that jobs wait
        self._told_reasons: set[str] = set()

    def submit(self, jobs: Sequence, request, resubmissions: int = 0) -> None:
        """One job, or one array; kept if the cluster takes no more, or if others wait for the same limit already."""
        scope = _scope_of(request)
        if scope in self._kept:
            self._kept.keep(scope, JobBatch(list(jobs), request, resubmissions))
            return
        try:
            self._submit(jobs, request, resubmissions)
        except slurm.SlurmLimitError as error:
            self._kept.keep(scope, JobBatch(error.jobs, request, resubmissions), _reason(error))

    def room_made(self, n: int) -> None:
        """`n` jobs have ended."""
        if n:
            self._kept.room_made(n)

    def release(self, array_size: int) -> None:
        """Try what is due, with one call of sbatch at most; in the watching thread, now and then."""
        self._tell()
        taken = self._kept.take(array_size)
        if taken is None:
            return
        scope, batch = taken
        try:
            self._submit(batch.jobs, batch.request, batch.resubmissions)
        except slurm.SlurmLimitError as error:
            batch.jobs = error.jobs
            alone = len(batch.jobs) == 1 and error.own and _none_in_queue()
            hopeless = self._kept.refused(scope, batch, _reason(error), alone)
            self._refuse(hopeless, f"{error}; not even this job alone is taken; nothing was submitted")
        else:
            self._kept.accepted(scope, batch)

    def close(self) -> int:
        """Submit no more jobs. Returns how many jobs are kept."""
        return self._kept.close()

    def _tell(self) -> None:
        n, now = len(self._kept), time.monotonic()
        if n and not self._told_reasons.issuperset(self._kept.reasons()):
            self._told_reasons.update(self._kept.reasons())
            jobs = "1 job waits here and is" if n == 1 else f"{n} jobs wait here and are"
            reasons = "; ".join(self._kept.reasons())
            self.logger.warning(
                f"the cluster takes no more jobs of yours now ({reasons}): {jobs} submitted as others end"
            )
        elif n and (self._told is None or now - self._told > self._remind_s):
            self.logger.info(f"{n} {'job waits' if n == 1 else 'jobs wait'} here for room in the queue")
        elif n or self._told is None:
            return
        else:
            self.logger.info("no job waits here any more: all are submitted")
            self._told_reasons.clear()
        self._told = now if n else None


def _scope_of(request) -> Hashable:
    """Jobs of which the same limit is reached: those of a QOS and an account, and of a partition's own QOS."""
    return request.partition, request.account, request.qos


def _reason(error: slurm.SlurmLimitError) -> str:
    return error.limit or str(error)


def _none_in_queue() -> bool:
    try:
        return not any(state.alive for state in queue.read_squeue().values())
    except slurm.SlurmError:
        return False
