"""From Snakemake's jobs to Slurm jobs: written down in the ledger, then given to sbatch."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import identity, slurm
from .command_line import why_not_named, why_too_long
from .ledger import Entry, Ledger, Submission
from .log_access import open_submission
from .requeues import limit_of
from .task import Task


@dataclass
class Submitter:
    """Submits jobs. Its callbacks are the executor's: the outcome of a job is reported by it.

    `command_of` gives the command that runs a job; `watch` takes over a job that is in the queue, `refuse` those that
    could not be submitted, with the reason; `on_wait` is called for an sbatch that is tried again.
    """

    folder: Path
    settings: object  # ExecutorSettings
    ledger: Ledger
    logger: object
    command_of: Callable
    watch: Callable
    refuse: Callable
    on_wait: Callable
    _words: set[str] = field(default_factory=set)

    def submit(self, jobs: Sequence, request, resubmissions: int = 0) -> None:
        """One job, or one array of jobs of one rule with the same resources.

        Raises:
            SlurmLimitError: the cluster takes no more jobs now; none was submitted. `jobs` are those not refused.
        """
        commands = self._commands(jobs)
        jobs = list(commands)
        if not jobs:
            return
        token = secrets.token_hex(4)
        prefix = self.settings.jobname_prefix
        name = identity.job_name(prefix, jobs[0]) if len(jobs) == 1 else identity.array_name(prefix, jobs)
        folder = self.folder / identity.folder_name(jobs[0]) / f"{name.removeprefix(prefix + '.')}-{token}"
        delay = self._signal_delay(request)
        try:
            folder.parent.mkdir(mode=0o700, exist_ok=True)  # parents=True would leave its mode to the umask
            folder.mkdir(mode=0o700)
            payloads = [
                self._payload(job, command, request, folder, delay, resubmissions, array=len(jobs) > 1)
                for job, command in commands.items()
            ]
            submission = Submission(
                token,
                str(folder),
                [
                    Entry(
                        key=identity.key_of(job),
                        fingerprint=identity.fingerprint_of(job),
                        request=repr(request),
                        name=identity.job_name(prefix, job),
                        code=identity.code_of(job),
                        members=identity.members_of(job),
                    )
                    for job in jobs
                ],
                resubmissions=resubmissions,
                under_way=True,
            )
            taken = self.ledger.intend(submission)
        except OSError as error:
            self.refuse(jobs, f"{error.filename or folder}: {error.strerror}; nothing was submitted")
            return
        if taken:
            shutil.rmtree(folder, ignore_errors=True)
            for index, owner in taken.items():
                self.refuse([jobs[index]], f"another Snakemake ({owner}) is making it by now; it was not submitted")
            self.submit([job for index, job in enumerate(jobs) if index not in taken], request, resubmissions)
            return
        try:
            self._call_sbatch(jobs, request, submission, payloads, name, delay)
        finally:
            submission.under_way = False

    def _signal_delay(self, request) -> int:
        """Seconds of warning. Of a short job half its time at most, or it would be asked to leave as it begins."""
        asked = self.settings.signal_delay
        return asked if request.time_min is None else min(asked, 30 * request.time_min)

    def _call_sbatch(self, jobs, request, submission, payloads, name, signal_delay_s) -> None:
        from .submission import ArrayExecutor

        array = ArrayExecutor(
            Path(submission.folder),
            request.sbatch_parameters(),
            name=name,
            comment=identity.comment_of(jobs),
            signal_delay_s=signal_delay_s,
        )
        try:
            slurm_id = array.submit_all(payloads, self.settings.command_timeout, self.on_wait)
        except slurm.SlurmUnreachableError as error:
            # The intent stays open.
            tried = "Snakemake ends" if slurm.ENDING.now else f"tried for {self.settings.command_timeout} s"
            self.refuse(jobs, f"{error} ({tried}); whether it got through is found out before it is tried again")
            return
        except slurm.SlurmLimitError as error:
            error.jobs = list(jobs)
            self._never(submission)
            shutil.rmtree(submission.folder, ignore_errors=True)  # many are made until it is known how many fit
            raise
        except (slurm.SlurmError, OSError) as error:
            self._never(submission)
            self.refuse(jobs, f"{error}; nothing was submitted")
            return
        try:
            self.ledger.submitted(submission, slurm_id)
        except OSError as error:
            path = error.filename or self.ledger.path
            self.logger.warning(f"{path}: {error.strerror}; a later start will ask Slurm for the id of job {slurm_id}")
        self._open_logs(Path(submission.folder))
        self._pass_on(array.words)
        tasks = [Task(submission, index, identity.label_of(job)) for index, job in enumerate(jobs)]
        for job, one in zip(jobs, tasks, strict=True):
            self.watch(job, one)
        kind = "Slurm job" if len(jobs) == 1 else f"{len(jobs)} tasks of Slurm array"
        self.logger.info(f"Submitted {kind} {slurm_id}: {identity.comment_of(jobs)}; log: {tasks[0].log}")

    def _never(self, submission: Submission) -> None:
        for index in submission.open_indices:
            self.ledger.ended(submission, index, "never")

    def _pass_on(self, words: Sequence[str]) -> None:
        """What the site says at a submission, such as a warning of its job_submit plugin; each line once."""
        for line in words:
            seen = re.sub(r"\d+", "0", line)  # with the job's number, it would be another one each time
            if seen not in self._words:
                self._words.add(seen)
                self.logger.info(line if line.startswith("sbatch") else f"sbatch: {line}")

    def _commands(self, jobs: Sequence) -> dict:
        """By job, without those that no node could start, which are refused."""
        found = {}
        for job in jobs:
            command = self.command_of(job)
            problem = why_not_named(job) or why_too_long(job, command)
            if problem is None:
                found[job] = command
            else:
                self.refuse([job], f"{problem}; it was not submitted")
        return found

    def _open_logs(self, folder: Path) -> None:
        try:
            open_submission(folder, self.settings.log_access)
        except OSError as error:  # the job is in the queue and goes on
            self.logger.warning(f"submitit-log-access: {error.filename or folder}: {error.strerror}")

    def _payload(
        self, job, command: str, request, folder: Path, signal_delay_s: int, resubmissions: int, *, array: bool
    ):
        from .payload import JobPayload

        return JobPayload(
            command,
            identity.job_name(self.settings.jobname_prefix, job),
            identity.outputs_to_check(job),
            workdir=os.getcwd(),
            folder=str(folder),
            signal_delay_s=signal_delay_s,
            requeue_limit=limit_of(request, self.settings),
            requeues=resubmissions,
            resumable=request.resumable,
            rename=array,
            group_reads=self.settings.log_access == "group",
        )
