"""What an earlier Snakemake of this working directory has submitted: taken up, replaced, or recorded as done."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from . import PROCESS_BEGAN, identity, queue, slurm, task
from .ledger import Ledger
from .task import Task

_CANCEL_WAIT_S = 90
_CLOCK_MARGIN_S = 5  # between this host and file servers


class Recovery:
    """Tasks that the ledger has as open when this process begins, by the key of their outputs."""

    def __init__(self, ledger: Ledger, patience_s: float, logger, on_wait: Callable):
        self.ledger, self.patience_s, self.logger, self.on_wait = ledger, patience_s, logger, on_wait
        self._states: dict[str, queue.State] | None = None
        self._read_ledger()

    def _read_ledger(self) -> None:
        self._known = {s.entries[index].key: (s, index) for s, index in self.ledger.open_tasks()}

    def resolve_intents(self) -> None:
        """Find out which submissions got through whose sbatch never answered, or was about to be called at a kill.

        Raises:
            SlurmUnreachableError: slurmctld does not answer, so that submitting now might double them.
        """
        from .submission import place_pickles

        unknown = [one for one in self.ledger.submissions.values() if one.slurm_id is None]
        for submission in unknown:
            folder = Path(submission.folder)
            slurm_id = slurm.patiently(
                lambda folder=folder: queue.find_submission(folder), self.patience_s, self.on_wait
            )
            if slurm_id is None:
                for index in submission.open_indices:
                    self.ledger.ended(submission, index, "never")
            else:
                place_pickles(folder, slurm_id, len(submission.entries))
                self.ledger.submitted(submission, slurm_id)
        if unknown:
            self._read_ledger()
            self._states = None

    def record_ended(self, dag, record: Callable) -> None:
        """Have Snakemake `record` jobs that ended well after it was killed, as it would have done itself.

        Without that record a later change of their parameters would go unnoticed.
        """
        jobs = {identity.key_of(job): job for job in dag.jobs} if self._known else {}
        for key, (submission, index) in list(self._known.items()):
            job = jobs.get(key)
            if job is None or submission.slurm_id is None or dag.needrun(job):
                continue
            one = Task(submission, index, identity.label_of(job))
            matches = submission.entries[index].fingerprint == identity.fingerprint_of(job)
            if matches and one.outcome.exists() and task.judge_outcome(one) == task.SUCCESS:
                record(job)
                self.ledger.ended(submission, index, "success")
                del self._known[key]

    def take_up(self, job, request) -> Task | None:
        """The task that makes this job's outputs already: queued, running, or ended since this process began.

        One that would make other outputs than asked for now is cancelled, and None returned.
        """
        known = self._known.pop(identity.key_of(job), None)
        if known is None:
            return None
        submission, index = known
        one = Task(submission, index, identity.label_of(job))
        if self._states is None:
            self._states = slurm.patiently(queue.read_squeue, self.patience_s, self.on_wait)
        state, entry = self._states.get(one.job_id), submission.entries[index]
        alive = state is not None and state.alive
        if alive and entry.fingerprint != identity.fingerprint_of(job):
            return self._replace(one, "its inputs or parameters have changed")
        if alive and identity.newest_input(job) > submission.time + _CLOCK_MARGIN_S:
            return self._replace(one, "its inputs are newer than it")
        if alive and state.state == "PENDING" and entry.request != repr(request):
            return self._replace(one, "its resources have changed")
        if not alive and not (one.outcome.exists() and one.outcome.stat().st_mtime > PROCESS_BEGAN):
            # Ended before this Snakemake looked at the files, which are not as wanted.
            self.ledger.ended(submission, index, "failed")
            return None
        return one

    def _replace(self, one: Task, reason: str) -> None:
        self.logger.info(f"Slurm job {one.job_id}, {one.label}: cancelled and submitted again, because {reason}")
        slurm.cancel([one.job_id], self.patience_s)
        end = time.monotonic() + _CANCEL_WAIT_S
        while time.monotonic() < end:  # two jobs must not write the same outputs
            state = slurm.patiently(queue.read_squeue, self.patience_s, self.on_wait).get(one.job_id)
            if state is None or not (state.alive or state.stuck):
                break
            time.sleep(1)
        self.ledger.ended(one.submission, one.index, "replaced")
