"""One submitted Snakemake job: where its files are, and what its end means."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path

from .ledger import Submission
from .queue import INFRASTRUCTURE, State

LOG_LINES = 20


@dataclass
class Task:
    """A task of a submission that this process waits for."""

    submission: Submission
    index: int
    label: str
    payload: object | None = None  # to submit again; None for one that an earlier process submitted
    state: State | None = None  # the last that Slurm has told
    ended_since: float | None = None  # when Slurm first said, or left unsaid, that it has ended
    warned: set = field(default_factory=set)

    @property
    def job_id(self) -> str:
        job_id = self.submission.job_id(self.index)
        assert job_id is not None
        return job_id

    @property
    def folder(self) -> Path:
        return Path(self.submission.folder)

    @property
    def log(self) -> Path:
        return self.folder / f"{self.job_id}_0_log.out"  # submitit's name

    @property
    def result(self) -> Path:
        return self.folder / f"{self.job_id}_0_result.pkl"  # submitit's name

    @property
    def requeues_used(self) -> int:
        path = self.folder / f"{self.job_id}.requeues"
        return int(path.read_text()) if path.exists() else self.submission.resubmissions


@dataclass(frozen=True)
class Verdict:
    """What is known about a task now: still going, made its outputs, failed, or to be submitted again."""

    kind: str  # waiting, success, failed, again
    reason: str = ""


WAITING = Verdict("waiting")
SUCCESS = Verdict("success")


def judge_result(task: Task) -> Verdict:
    """From the result file, which is renamed into place when the payload has ended.

    Raises:
        OSError: it can't be read now.
    """
    # From our own folder, which nobody else can write; pickle is submitit's format.
    kind, value = pickle.loads(task.result.read_bytes())
    if kind != "success":
        return Verdict("failed", str(value).strip().splitlines()[-1])
    if value["reason"]:
        return Verdict("failed", value["reason"])
    if value["returncode"] < 0:
        return Verdict("failed", f"ended by signal {-value['returncode']} on {value['host']}")
    if value["returncode"]:
        return Verdict("failed", f"exit code {value['returncode']} on {value['host']}")
    if value["missing"]:
        return Verdict("failed", f"ended with exit code 0 but did not make {', '.join(value['missing'])}")
    return SUCCESS


def judge_state(task: Task, state: State | None, now: float, latency_s: float, requeue_limit: int) -> Verdict:
    """From what Slurm says about a task without a result file; `state` None: Slurm doesn't know it any more.

    The result file may show up late on a network file system, so the end counts only `latency_s` after it was seen.
    """
    task.state = state
    if state is not None and state.alive:
        task.ended_since = None
        return WAITING
    if state is not None and state.stuck:
        return Verdict("failed", f"Slurm holds it and will not start it again: {state.detail or state.state}")
    if task.ended_since is None:
        task.ended_since = now
    if now - task.ended_since < latency_s:
        return WAITING
    if state is None:
        return Verdict("failed", "vanished from Slurm without leaving a result; was the controller's state lost?")
    name = state.state
    explained = {
        "TIMEOUT": "reached its time limit before it could be requeued; raise `runtime`",
        "OUT_OF_MEMORY": "ran out of memory; raise `mem_mb`",
        "CANCELLED": "was cancelled" + (f" {state.detail}" if state.detail.startswith("by") else ""),
        "PREEMPTED": "was cancelled by a preemption",
        "NODE_FAIL": "lost its node",
        "FAILED": "ended without a result",
        "COMPLETED": "ended without a result",
    }.get(name, "ended")
    reason = f"{explained} ({name}{', ' + state.detail if state.detail and 'by' not in state.detail else ''})"
    if name in INFRASTRUCTURE and task.payload is not None and task.requeues_used < requeue_limit:
        return Verdict("again", reason)
    return Verdict("failed", reason)


def tail(log: Path, lines: int = LOG_LINES) -> list[str]:
    """The last lines of a log, without reading all of it."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - 16384, 0))
            return file.read().decode(errors="replace").replace("\r", "\n").splitlines()[-lines:]
    except OSError as error:
        return [f"(no log: {error.strerror})"]

