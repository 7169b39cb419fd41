"""What has become of each planned job, told by files and by one squeue (and one sacct at most)."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass, field
from pathlib import Path

from promptecho.clean.at_work import begun_marks, record_of
from promptecho.status.failures import JobFailure, begins_no_more, read_failures
from promptecho.status.job_list import JobList, ListedJob, records_of, time_of
from promptecho.status.queue import QueuedJob, ask_accounting, ask_queue
from promptecho.status.slurm_files import SlurmTask, plain_name, read_ledger, slurm_name
from promptecho.train.stop_file import stop_file_of

DONE, RUNNING, PENDING, FAILED, INTERRUPTED = "done", "running", "pending", "failed", "interrupted"
_CLOCKS_S = 2.0  # by which a file server's clock may be behind
_ALIVE = ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED", "SUSPENDED")


@dataclass
class JobStanding:
    """How a job stands. Seconds; None: not known, or there is none."""

    job: ListedJob
    state: str
    reason: str = ""  # why it waits or has failed
    slurm: str | None = None
    node: str | None = None
    elapsed: float | None = None
    limit: float | None = None
    start: float | None = None  # since the epoch: when Slurm expects to start it
    requeues: int = 0
    log: Path | None = None


@dataclass
class JobStandings:
    """All of them, and what could not be known."""

    jobs: list[JobStanding]
    notes: list[str] = field(default_factory=list)
    unnamed: list[QueuedJob] = field(default_factory=list)  # in Slurm's queue; which jobs they are can't be known


def stand(listed: JobList, now: float) -> JobStandings:
    """How the jobs of a list stand at time `now` (seconds since the epoch)."""
    root = listed.root
    if root is None:
        return JobStandings([], [f"these results were made as {listed.prefix}, and lie elsewhere now"])
    return _JobRecords(listed, root, now).all()


class _JobRecords:
    def __init__(self, listed: JobList, root: Path, now: float):
        self.listed, self.root, self.now = listed, root, now
        self.results = listed.path.parents[2]
        self.notes: list[str] = []
        self.marks = dict(begun_marks(records_of(root)))
        self.ending = listed.alive is not False and begins_no_more(root, listed.started)
        self.failures: dict[str, JobFailure] = {}
        for since in sorted({listed.started, *(job.since for job in listed.jobs if job.since > listed.started)}):
            self.failures |= read_failures(root, since)
        self.tasks: dict[str, SlurmTask] = {}
        self.queued: dict[str, QueuedJob] = {}
        self.by_name: dict[str, QueuedJob] = {}
        self.accounting: dict[str, str] = {}
        self.asked_slurm = self.readable = False
        if listed.logdir is not None:
            self._ask_slurm(root / listed.logdir)

    def _ask_slurm(self, logdir: Path) -> None:
        self.tasks, problem = read_ledger(logdir)
        self.readable = problem is None
        owner = self.listed.path.stat().st_uid
        try:
            user = pwd.getpwuid(owner).pw_name
        except KeyError:
            user = str(owner)
        jobs, unasked = ask_queue(user)
        self.notes += [one for one in (problem, unasked) if one]
        self.asked_slurm = unasked is None
        known = {task.job_id for task in self.tasks.values()}
        folders = (f"{logdir}/", f"{logdir.resolve()}/")
        ours = [job for job in jobs if job.job_id in known or job.script.startswith(folders)]
        self.queued = {job.job_id: job for job in ours}
        # Tasks of an array have names of their own from their start on.
        self.by_name = {plain_name(job.name): job for job in ours}
        if self.asked_slurm:
            gone = [
                task.job_id
                for task in self.tasks.values()
                if task.ended is None and task.job_id and task.job_id not in self.queued and task.outcome() is None
            ]
            rows, unasked = ask_accounting(gone, "JobID,State")
            self.notes += [unasked] if unasked else []
            self.accounting = {row[0]: row[1] for row in rows if len(row) > 1}

    def all(self) -> JobStandings:
        found = {job.key: self._one(job) for job in self.listed.jobs}
        for standing in found.values():
            if standing.state == PENDING and not standing.reason:
                standing.reason = self._why_not(standing.job, found)
        named = {standing.slurm for standing in found.values()}
        return JobStandings(
            list(found.values()), self.notes, [job for job in self.queued.values() if job.job_id not in named]
        )

    def _one(self, job: ListedJob) -> JobStanding:
        standing = JobStanding(job, DONE, log=None if job.log is None else self.root / job.log)
        if not job.needed:
            return standing
        task = self.tasks.get(slurm_name(job.rule, job.wildcards)) if self.tasks else None
        queued = self._queued(job, task)
        if queued is not None:
            return self._in_queue(standing, queued, task)
        mark = next((self.marks[output] for output in job.outputs if output in self.marks), None)
        if task is not None and task.ended is None and task.job_id is not None:
            return self._submitted(standing, task)
        if mark is not None and (begun := self._begun(standing, mark)) is not None:
            return begun
        if self._made(job):
            return standing
        if (failure := self._failure(job, task, mark)) is not None:
            standing.state = INTERRUPTED if failure.interrupted else FAILED
            standing.reason = failure.reason
            if job.run is not None and os.path.exists(stop_file_of(self.results, job.run)):
                standing.state, standing.reason = INTERRUPTED, "stopped by promptecho stop; its state is saved"
            if task is not None and task.log.exists() and not (standing.log and standing.log.exists()):
                standing.log = task.log
            return standing
        standing.state = PENDING
        return standing

    def _queued(self, job: ListedJob, task: SlurmTask | None) -> QueuedJob | None:
        if not self.queued:
            return None
        if task is not None:
            return self.queued.get(task.job_id or "")
        return self.by_name.get(slurm_name(job.rule, job.wildcards)) if not self.tasks else None

    def _in_queue(self, standing: JobStanding, queued: QueuedJob, task: SlurmTask | None) -> JobStanding:
        standing.state = PENDING if queued.pending else RUNNING
        standing.slurm, standing.limit, standing.requeues = queued.job_id, queued.limit, task.requeued() if task else 0
        if queued.pending:
            standing.reason, standing.start = f"Slurm: {queued.reason or queued.state}", queued.start
        else:
            standing.node, standing.elapsed = queued.node, queued.elapsed
        return standing

    def _submitted(self, standing: JobStanding, task: SlurmTask) -> JobStanding:
        """To Slurm, whose queue does not have it."""
        standing.slurm, standing.requeues, standing.node = task.job_id, task.requeued(), task.node()
        if task.outcome() is not None:
            standing.state, standing.reason = RUNNING, "has ended; Snakemake has not recorded it yet"
        elif not self.asked_slurm:
            standing.state = RUNNING if standing.node else PENDING
            standing.reason = "Slurm: submitted; its queue was not asked"
        else:
            word = self.accounting.get(task.job_id or "", "")
            standing.state = RUNNING if word.startswith(_ALIVE) else INTERRUPTED
            standing.reason = f"Slurm: {word or 'not in its queue any more'}, without a word from the job"
        return standing

    def _begun(self, standing: JobStanding, mark: Path) -> JobStanding | None:
        """Chosen by Snakemake; None where that says nothing, as of a job that waits in it for room in Slurm's queue."""
        job = standing.job
        begun = _modified(mark)  # None: it has just ended
        if begun is not None and begun < job.since - _CLOCKS_S and job.alive is not False:
            return None  # left by an earlier start that was killed; this one has not come to it yet
        if self.listed.logdir is not None and not self.listed.rules.get(job.rule, {}).get("local"):
            if self.readable and job.alive is not False:
                return None
            if not self.readable:
                standing.state, standing.reason = PENDING, "Slurm: in its queue, or about to be"
                return standing
        if job.alive is False:
            standing.state = INTERRUPTED
            standing.reason = "Snakemake was ended while it ran"
            return standing
        standing.state = RUNNING
        standing.node = job.host
        standing.elapsed = None if begun is None else max(0.0, self.now - begun)
        return standing

    def _made(self, job: ListedJob) -> bool:
        times = [time_of(os.path.join(self.root, output)) for output in job.outputs]
        if None in times:
            return False
        since = job.since - _CLOCKS_S
        if min(time for time in times if time is not None) >= since:
            return True
        # A Slurm job may have made them before this start has taken note of its end.
        noted = time_of(record_of(records_of(self.root), job.key))
        return noted is not None and noted >= since

    def _failure(self, job: ListedJob, task: SlurmTask | None, mark: Path | None) -> JobFailure | None:
        told = self.failures.get(job.key)
        if task is None or task.ended != "failed":
            return told
        ended = task.decided()
        if told is None and ended < job.since - _CLOCKS_S:
            return None  # in an earlier start; this one makes it again
        if mark is not None and (_modified(mark) or 0.0) > ended:
            return None  # begun again since, and waits in Snakemake for room in Slurm's queue
        return JobFailure(_words(task) or ("" if told is None else told.reason))

    def _why_not(self, job: ListedJob, found: dict[str, JobStanding]) -> str:
        blocked = self._blocked(job, found)
        if blocked is not None:
            what = "has failed" if blocked.state == FAILED else "was interrupted"
            return f"needs {blocked.job.label}, which {what}"
        open_ = sorted({found[key].job.rule for key in job.needs if found[key].state != DONE})
        if open_:
            return f"needs {', '.join(open_)}"
        if self.listed.alive is False:
            return "Snakemake is not running"
        if not job.asked:
            earlier = job.since < self.listed.started
            return "the newest start does not ask for it" if earlier else "the start that asked for it has ended"
        if self.ending and job.since == self.listed.started:
            return "Snakemake begins no more jobs: it ends when those that run have ended"
        return "ready: waits for its turn"

    def _blocked(self, job: ListedJob, found: dict[str, JobStanding]) -> JobStanding | None:
        """What keeps it from being made: the first that has failed or was interrupted, among all that it waits for."""
        seen, ahead = set[str](), list(job.needs)
        while ahead:
            key = ahead.pop(0)
            if key in seen:
                continue
            seen.add(key)
            standing = found[key]
            if standing.state in (FAILED, INTERRUPTED):
                return standing
            if standing.state == PENDING:
                ahead += standing.job.needs
        return None


def _words(task: SlurmTask) -> str:
    """What a Slurm job that failed has said of its end."""
    told = task.outcome()
    if told is None:
        return ""
    where = f"on {told.get('node')} after {told.get('seconds', 0):.0f} s"
    if told.get("reason"):
        return f"{told['reason']}; {where}"
    memory = told.get("memory") or {}
    if memory.get("kills") and memory.get("of_job"):
        return f"ran out of memory {where}"
    if told.get("missing"):
        return f"ended {where} and did not make {told['missing'][0]}"
    return f"exit code {told.get('returncode')} {where}"


def _modified(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
