"""What an earlier Snakemake of this working directory has submitted: taken up, replaced, or recorded as done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
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

        # A copy, and none whose sbatch is under way: another thread submits jobs again.
        unknown = [one for one in list(self.ledger.submissions.values()) if one.slurm_id is None and not one.under_way]
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

    def take_up(self, wanted: Sequence[tuple[object, object]]) -> dict[object, Task]:
        """Of (job, request) pairs, those whose outputs are being made already: queued, running, or ended since this
        process began, by job.

        Tasks that would make other outputs than asked for now are cancelled, all at once; those that have made others
        don't count.

        Raises:
            SlurmError: the queue can't be read, or a task not be cancelled.
        """
        found, replaced = {}, []
        for job, request in wanted:
            known = self._known.pop(identity.key_of(job), None)
            if known is None:
                continue
            one = Task(*known, identity.label_of(job))
            if self._states is None:
                self._states = self._read_queue()
            state = one.state_in(self._states)
            reason = _reason_to_replace(one, state, job, request)
            if state is not None and state.alive:
                if reason is None:
                    found[job] = one
                else:
                    self.logger.info(f"Slurm job {one.job_id}, {one.label}: cancelled and submitted again: {reason}")
                    replaced.append(one)
            elif reason is None and one.outcome.exists() and one.outcome.stat().st_mtime > PROCESS_BEGAN:
                found[job] = one
            else:  # ended before this Snakemake looked at the files, which are not as wanted, or made others
                self.ledger.ended(one.submission, one.index, "failed")
        if replaced:
            self._cancel(replaced)
        return found

    def _cancel(self, tasks: Sequence[Task]) -> None:
        """Cancel and see them gone: two jobs must not write the same outputs."""
        slurm.cancel([one.job_id for one in tasks], self.patience_s)
        end = time.monotonic() + _CANCEL_WAIT_S
        while time.monotonic() < end:
            states = self._read_queue()
            now = {one.job_id: one.state_in(states) for one in tasks}
            left = [job_id for job_id, state in now.items() if state is not None and state.alive]
            if not left:
                break
            time.sleep(1)
        else:
            raise slurm.SlurmError(f"scancel: still not gone after {_CANCEL_WAIT_S} s: {', '.join(left)}")
        for one in tasks:
            self.ledger.ended(one.submission, one.index, "replaced")

    def _read_queue(self) -> dict[str, queue.State]:
        return slurm.patiently(queue.read_squeue, self.patience_s, self.on_wait)


def _reason_to_replace(one: Task, state: queue.State | None, job, request) -> str | None:
    entry = one.submission.entries[one.index]
    if entry.fingerprint != identity.fingerprint_of(job):
        return "its inputs or parameters have changed"
    if identity.newest_input(job) > one.submission.time + _CLOCK_MARGIN_S:
        return "its inputs are newer than it"
    if state is not None and state.state == "PENDING" and entry.request != repr(request):
        return "its resources have changed"
    return None
