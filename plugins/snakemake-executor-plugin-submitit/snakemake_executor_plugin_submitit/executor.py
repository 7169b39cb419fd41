"""The life of a job: written down, submitted, watched, and ended, lost or taken up again."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.real import RealExecutor
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.utils import format_cli_arg

from . import events, identity, requeues, slurm, starting
from .elsewhere import Elsewhere
from .folder import keep_folders_of_jobs, private_folder
from .keeping import Keeper
from .ledger import WITHOUT_LEDGER, Ledger
from .owners import Owners
from .recovery import Recovery
from .signals import Signals, speak_to_nobody
from .submitting import Submitter
from .task import Task, TaskVerdict
from .telling import failure_message
from .watching import Watcher

_WAIT_FILES_IN_COMMAND = 20
_SHUTDOWN_STEP_S = 0.5
_LONGEST_WAIT_FOR_TELLING_S = 5.0


class Executor(RemoteExecutor):
    """Submits Snakemake jobs through submitit; docs/further.md says what happens when."""

    def __init__(self, workflow, logger):
        # Before the base class starts its thread, because the thread reads the environment too.
        removed = slurm.clean_environment()
        if removed:
            logger.warning(f"ignoring {', '.join(removed)}: resources and settings decide how jobs are submitted")
        slurm.ENDING.now = False
        self._keeper: Keeper | None = None
        self._signals = Signals(logger)
        self._live: dict[str, Task] = {}  # by Slurm id; active_jobs is empty while the thread looks at them
        self._told_of_end = False
        self._gone = 0  # looks in a row at which the log folder was not there
        self._to_record: dict[object, Task] = {}  # by job: ended well, not yet recorded by Snakemake
        self._ends_told = events.EndsTold(lambda job: workflow.dag.finished(job))
        super().__init__(workflow, logger)

    def __post_init__(self) -> None:
        from .checks import check_expressions

        check_expressions(self.workflow)
        self.settings = self.workflow.executor_settings
        self.folder = private_folder(Path(self.settings.logdir).absolute(), Path.cwd(), self.settings.log_access)
        try:
            self.owners = Owners(self.folder)
            self.owners.begin()
            self.ledger = Ledger(self.folder / "ledger.jsonl", self.owners.gone)
        except OSError as error:
            raise WorkflowError(f"{error.filename or self.folder / 'ledger.jsonl'}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise WorkflowError(
                f"{self.folder / 'ledger.jsonl'}: {error}; if none of this workflow's jobs is in the queue "
                "(squeue --me), delete the file"
            ) from None
        self._prepared = False
        self._max_array_size = self.settings.array_size
        self._elsewhere: Elsewhere | None = None
        submitter = Submitter(
            self.folder, self.settings, self.ledger, self.logger,
            command_of=self.format_job_exec, watch=self._watch, refuse=self._refuse, on_wait=self._tell_of_waiting,
        )  # fmt: skip
        self._keeper = Keeper(submitter.submit, self._refuse, self.logger, self.settings.command_timeout)
        self._watcher = Watcher(self.settings, self.logger, self._latency)
        self._earlier = Recovery(
            self.ledger, self.owners, self.settings.command_timeout, self.logger, self._tell_of_waiting
        )
        self._earlier.record_ended(
            self.workflow.dag,
            lambda job: self.workflow.async_run(self.workflow.persistence.finished(job)),
            self.workflow.persistence.started,  # as incomplete as what a kill has left
        )
        keep_folders_of_jobs(self.workflow.dag, self.ledger)

    # Submission, in Snakemake's main thread.

    def run_job(self, job) -> None:
        self.run_jobs([job])

    def run_jobs(self, jobs: list) -> None:
        self._prepare()
        wanted = []
        for job in jobs:
            self.run_job_pre(job)
            try:
                wanted.append((job, self._request(job)))
            except WorkflowError as error:
                self._refuse([job], str(error))
        try:
            taken = self._take_up(wanted)
        except slurm.SlurmError as error:
            raise WorkflowError(f"{error}; nothing was submitted") from None
        groups: dict[tuple, list] = {}
        for job, request in wanted:
            if job not in taken:
                groups.setdefault((identity.rule_of(job), request), []).append(job)
        for (_, request), members in groups.items():
            members.sort(key=identity.natural_order)
            size = self._array_size
            for start in range(0, len(members), size):
                with self._signals.held_back():
                    self._keeper.submit(members[start : start + size], request)

    @property
    def _array_size(self) -> int:
        return max(min(self.settings.array_size, self._max_array_size), 1)

    def _prepare(self) -> None:
        """Once, before the first submission."""
        if self._prepared:
            return
        self._prepared = True
        from .checks import check_jobs, in_order
        from .site import Site

        site = check_jobs(in_order(self.workflow), self.settings, self.logger) or Site.read()
        self._max_array_size = site.max_array_size
        self._signals.install()

    def _request(self, job):
        from .checks import request_of_job

        return request_of_job(job)

    def _take_up(self, wanted: Sequence[tuple]) -> set:
        """Watch the jobs that an earlier process has submitted."""
        jobs = [job for job, _ in wanted]
        if self._elsewhere is None:
            self._elsewhere = Elsewhere.read(self.folder, Path.cwd())
        self._elsewhere.refuse(jobs)
        self._earlier.wait_for_owners(jobs)
        self._earlier.resolve_intents()
        found = self._earlier.take_up(wanted)
        for job, one in found.items():
            self._watch(job, one)
            self.logger.info(f"Taken up: Slurm job {one.job_id}, {one.label}; log: {one.log}")
        return set(found)

    def format_job_exec(self, job) -> str:
        """Of the parent, with the quick start of the job's Snakemake where nodes have this one's Python."""
        command, python = super().format_job_exec(job), self.get_python_executable()
        if self.settings.plain_start or python != sys.executable:
            return command
        return starting.quickly(command, python, self.folder)

    def additional_general_args(self) -> str:
        # In every job's log otherwise; and one job to choose from needs no solver.
        return "--quiet host --scheduler greedy"

    def get_job_args(self, job, **kwargs) -> str:
        """Of the parent, less its wait for a temporary folder that is gone when Snakemake has ended or was killed.

        `--cores` is the job's own number, because a node's free cores would scale the rule's threads down.
        """
        arguments = RealExecutor.get_job_args(self, job, cores=max(job.threads, 1), **kwargs)
        files = job.get_wait_for_files()
        if len(files) <= _WAIT_FILES_IN_COMMAND:
            return f"{arguments} {format_cli_arg('--wait-for-files', files, skip=not files)}"
        path = self.folder / "inputs" / f"{identity.key_of(job)}.txt"
        path.parent.mkdir(mode=0o700, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(f"{file}\n" for file in files))
        temporary.replace(path)
        return f"{arguments} {format_cli_arg('--wait-for-files-file', path)}"

    def _watch(self, job, one: Task) -> None:
        request = self._request(job)
        one.resumable, one.requeue_limit = request.resumable, requeues.limit_of(request, self.settings)
        info = SubmittedJobInfo(job, external_jobid=one.job_id, aux={"task": one})
        self._live[one.job_id] = one
        self.report_job_submission(info)
        events.tell_remote_state(job, one, self.logger, "queued", "PENDING")

    def _refuse(self, jobs: Sequence, reason: str) -> None:
        """Fail jobs that could not be submitted; retries of the rule still apply."""
        for job in jobs:
            info = SubmittedJobInfo(job)
            # Snakemake wants every failed job to have been submitted; without registering it as begun.
            self.workflow.scheduler.submit_callback(job)
            self.report_job_error(info, msg=f"{identity.label_of(job)}: {reason}")

    def _tell_of_waiting(self, retry_state) -> None:
        if retry_state.attempt_number == 1:
            self.logger.warning(f"{retry_state.outcome.exception()}; trying again")

    # Watching, in the base class's thread.

    def _wait_thread(self) -> None:
        """As the parent, but an error is passed on even if printing it fails because nothing reads the output."""
        try:
            asyncio.run(self._wait_for_jobs())
        except Exception as error:
            if self.workflow.scheduler is not None:
                self.workflow.scheduler.executor_error_callback(error)

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]):
        if not active_jobs:  # as long as `__post_init__` has not ended, too
            return
        self._look_for_folder()
        for info in active_jobs:
            events.note_start(info.aux["task"])
        verdicts = self._watcher.judge([info.aux["task"] for info in active_jobs])
        self._keeper.room_made(sum(verdict.kind != "waiting" for verdict in verdicts.values()))
        patience = time.monotonic() + _LONGEST_WAIT_FOR_TELLING_S
        # Ends first, as they came: logs then tell things in the order in which they happened.
        for info in sorted(active_jobs, key=lambda info: _place(info.aux["task"], verdicts[id(info.aux["task"])])):
            one = info.aux["task"]
            verdict = verdicts[id(one)]
            if verdict.kind == "waiting":
                if one.node is not None and not one.told and self._ends_told.include_those_of(one):
                    events.tell_of_start(info.job, one, self.logger)
                yield info
                continue
            events.note_start(one)
            self._live.pop(one.job_id, None)
            if verdict.kind == "success":
                requeues.tell(one, self.logger)
                self._to_record[info.job] = one
                self._ends_told.report(info.job)
                self.report_job_success(info)
                continue
            await self._wait_for_ends_before(one, patience)
            events.tell_of_start(info.job, one, self.logger)
            requeues.tell(one, self.logger)
            if verdict.kind == "again":
                self.ledger.ended(one.submission, one.index, "again")
                again = f"submitting it again (requeue {requeues.number_of_next(one)} of {one.requeue_limit})"
                self.logger.warning(f"Slurm job {one.job_id}, {one.label}: {verdict.reason}; {again}")
                self._again(info)
            else:
                if one.state is not None and one.state.stuck:
                    self._cancel_all([one.job_id])  # or it would run beside a retry once it is released
                self._close(one, "failed")
                message = failure_message(info.job, one, verdict, self.workflow)
                self.report_job_error(info, msg=message, aux_logs=[str(one.log)])

    async def _wait_for_ends_before(self, one: Task, until: float) -> None:
        """Snakemake tells of failures at once, and of other ends when its main thread gets there."""
        while not one.told and self.wait and not self._ends_told.include_those_of(one) and time.monotonic() < until:
            await asyncio.sleep(0.02)

    def _look_for_folder(self) -> None:
        """Without its folder a job can't report its end, so it would be waited for up to its time limit.

        Raises:
            WorkflowError: the log folder is gone, at two looks in a row.
        """
        with contextlib.suppress(OSError):  # a file server that does not answer is waited for
            self._gone = 0 if self.folder.exists() else self._gone + 1
        if self._gone > 1:
            raise WorkflowError(
                f"{self.folder}: somebody has removed the log folder, or the working folder; {WITHOUT_LEDGER}"
            )

    def handle_job_success(self, job) -> None:
        """Called once Snakemake has recorded the job; a kill before that leaves it open in the ledger."""
        self._close_recorded(job, "success")

    def handle_job_error(self, job) -> None:
        self._close_recorded(job, "failed")

    def _close_recorded(self, job, outcome: str) -> None:
        one = self._to_record.pop(job, None)
        if one is not None:
            events.tell_of_start(job, one, self.logger)  # a short job's, after the ends that were reported before
            self._close(one, outcome)
            self._ends_told.record(job, outcome)

    def _latency(self) -> float:
        return max(self.workflow.execution_settings.latency_wait, 2.0)

    def _again(self, info: SubmittedJobInfo) -> None:
        """Submit in place of one that ended through no fault of its own; the base class takes the new one over."""
        one = info.aux["task"]
        number = requeues.number_of_next(one)
        self._keeper.submit([info.job], self._request(info.job), resubmissions=number)

    def _close(self, one: Task, outcome: str) -> None:
        one.waited_for -= 1
        if outcome == "success" and one.waited_for > 0:
            return
        self.ledger.ended(one.submission, one.index, outcome)
        if outcome == "success":
            for kind in ("submitted.pkl", "0_result.pkl"):
                (one.folder / f"{one.job_id}_{kind}").unlink(missing_ok=True)
            for kind in ("started", "requeues", "outcome.json", "command.sh"):
                (one.folder / f"{one.job_id}.{kind}").unlink(missing_ok=True)
            for left in one.folder.glob(f"{one.job_id}.stop.*"):
                left.unlink(missing_ok=True)

    def print_job_error(self, job_info: SubmittedJobInfo, msg=None, **kwargs) -> None:
        if job_info.external_jobid is not None:
            kwargs["external_jobid"] = job_info.external_jobid
        if msg and job_info.job.is_group():
            self.logger.error(msg)  # Snakemake reports a group without
        job_info.job.log_error(msg, **kwargs)

    # The end.

    def cancel(self) -> None:
        """Ctrl-C cancels the jobs; they go on after SIGTERM, SIGHUP, or an error in Snakemake itself."""
        interrupted = self._signals.interrupted or (
            self._signals.received is None and isinstance(sys.exc_info()[1], KeyboardInterrupt)
        )
        detached = not interrupted or self.settings.keep_on_exit
        speak_to_nobody(self.logger)  # the error may be that of a log without a reader
        try:
            self._end_jobs(detached)
        except KeyboardInterrupt:
            ids = sorted(self._live)
            if ids and not self._told_of_end:
                self._told_of_end = True
                self.logger.warning(
                    f"interrupted once more: {len(ids)} Slurm {'job goes' if len(ids) == 1 else 'jobs go'} on, or may "
                    f"do so; start Snakemake again to take them up, or: scancel {' '.join(ids)}"
                )
            self.owners.end()

    def _end_jobs(self, detached: bool) -> None:
        # First the thread ends, which may be submitting a job that is to be cancelled or counted here.
        slurm.ENDING.now = True
        kept = self._keeper.close() if self._keeper is not None else 0
        self._end_thread()
        if kept:
            jobs = "1 job that waited here was" if kept == 1 else f"{kept} jobs that waited here were"
            self.logger.info(f"{jobs} not submitted yet")
        ids = sorted(self._live)
        if ids and not detached:
            self._cancel_all(ids)
            self._told_of_end = True
        self.shutdown()

    def shutdown(self) -> None:
        """Jobs are left here after an error in Snakemake's or the base class's thread, too."""
        if self._live and not self._told_of_end and self.folder.exists():  # or they can't be taken up
            self._told_of_end = True
            ids = sorted(self._live)
            jobs = "1 Slurm job goes on" if len(ids) == 1 else f"{len(ids)} Slurm jobs go on"
            self.logger.info(f"{jobs} ({', '.join(ids[:5])}{', ...' if len(ids) > 5 else ''}); "
                             "start Snakemake again to take them up")  # fmt: skip
        self._end_thread()
        self.owners.end()

    def _end_thread(self) -> None:
        # The parent makes its temporary folder to remove it, which can't be done in a working folder that is gone.
        with contextlib.suppress(FileNotFoundError):
            super().shutdown()

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        self._cancel_all([info.external_jobid for info in active_jobs])

    def _cancel_all(self, ids: Sequence[str]) -> None:
        self.logger.info(f"Cancelling {len(ids)} Slurm {'job' if len(ids) == 1 else 'jobs'}")
        try:
            slurm.cancel(ids, 30)
        except slurm.SlurmError as error:
            self.logger.error(f"{error}; the jobs go on; cancel them by: scancel {' '.join(ids)}")
            return
        # Not those whose end is being reported.
        ended = [one for job_id in ids if (one := self._live.pop(job_id, None)) is not None]
        try:
            self.ledger.cancelled([(one.submission, one.index) for one in ended])
        except WorkflowError as error:
            self.logger.error(str(error))

    async def sleep(self) -> None:
        """As the parent, but awake soon after a shutdown, and busy with jobs that are kept."""
        end = time.monotonic() + self.next_seconds_between_status_checks
        while self.wait and time.monotonic() < end:
            if self._keeper is not None:  # as in `check_active_jobs`
                self._keeper.release(self._array_size)
            await asyncio.sleep(min(_SHUTDOWN_STEP_S, self.next_seconds_between_status_checks))


def _place(one: Task, verdict: TaskVerdict) -> float:
    """Among the jobs of one look: those that have ended, by the time of it, before all others."""
    if verdict.kind == "waiting":
        return math.inf
    try:
        return one.outcome.stat().st_mtime
    except OSError:  # its end is known from Slurm
        return sys.float_info.max
