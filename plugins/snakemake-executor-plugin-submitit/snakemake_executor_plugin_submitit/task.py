"""One submitted Snakemake job: where its files are, and what its end means."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .ledger import Submission
from .payload import LONGER_OR_RESUMABLE
from .queue import INFRASTRUCTURE, State, is_from


@dataclass
class Task:
    """A task of a submission that this process waits for."""

    submission: Submission
    index: int
    label: str
    state: State | None = None  # the last that Slurm has told
    ended_since: float | None = None  # when Slurm first said, or left unsaid, that it has ended
    node: str | None = None  # where it runs or ran; None: it is not known to have begun
    told: bool = False  # log handlers know that it has begun
    ends_before: int | None = None  # reported until it was seen to run (events.EndsTold)
    warned: set = field(default_factory=set)
    requeues_told: int = 0
    resumable: bool = False  # its rule says that it goes on from what it has saved
    requeue_limit: int | None = None  # of its rule, or the setting
    waited_for: int = 0  # by as many jobs of this start, if they are parts of a group of an earlier one

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
    def outcome(self) -> Path:
        return self.folder / f"{self.job_id}.outcome.json"

    @property
    def started(self) -> Path:
        """Holds the node's name and the number of restarts from the moment at which the job runs."""
        return self.folder / f"{self.job_id}.started"

    def state_in(self, states: Mapping[str, State]) -> State | None:
        """Its state among those of squeue.

        None too where its id is another job's by now, as after a controller that has lost its state: such a job is
        neither waited for nor cancelled.
        """
        state = states.get(self.job_id)
        if state is None:
            return None
        prefix = self.submission.entries[self.index].name.partition(".")[0]
        ours = is_from(state.script, self.folder) if state.script else state.name.startswith(f"{prefix}.")
        return state if ours else None

    @property
    def requeues(self) -> list[dict]:
        """Those that the job has made itself, in order: the number of restarts before each, and what it was for."""
        try:
            found = json.loads((self.folder / f"{self.job_id}.requeues").read_text())
        except (OSError, ValueError):
            return []
        return found if isinstance(found, list) else []  # jobs that an earlier version submitted wrote a number

    @property
    def requeues_used(self) -> int:
        """Of the requeue limit, by this submission and those before it."""
        return self.submission.resubmissions + len(self.requeues)

    @property
    def restarts(self) -> int | None:
        """Of the life that runs or ran last; None where it is not known to have begun."""
        try:
            _, *rest = self.started.read_text().split()
            return int(rest[0]) if rest else None
        except (OSError, ValueError):
            return None

    @property
    def leaves(self) -> bool:
        """Whether this life's command has left because it was asked to: the job's requeue is written down."""
        done = self.requeues
        return bool(done) and done[-1]["life"] == self.restarts


@dataclass(frozen=True)
class TaskVerdict:
    """What is known about a task now: still going, made its outputs, failed, or to be submitted again."""

    kind: str  # waiting, success, failed, again
    reason: str = ""
    out_of_memory: bool = False
    unclear: bool = False  # Slurm may know better why


WAITING = TaskVerdict("waiting")
SUCCESS = TaskVerdict("success")


def judge_outcome(task: Task) -> TaskVerdict:
    """From the outcome file, which is renamed into place when the payload has ended.

    Raises:
        OSError, ValueError: it can't be read now.
    """
    outcome = json.loads(task.outcome.read_text())
    where = f"on {outcome['node']} after {outcome['seconds']:.0f} s"
    if outcome["reason"]:
        return TaskVerdict("failed", f"{outcome['reason']}; {where}")
    if outcome["returncode"]:
        return _judge_returncode(outcome["returncode"], where, outcome["node"], outcome.get("memory") or {})
    if outcome["missing"]:
        return TaskVerdict("failed", f"ended without error {where} but did not make {', '.join(outcome['missing'])}")
    return SUCCESS


def _judge_returncode(returncode: int, where: str, node: str, memory: Mapping) -> TaskVerdict:
    """A command that failed, and perhaps lost processes to the kernel (payload.memory)."""
    kills = memory.get("kills")
    processes = "a process" if kills == 1 else f"{kills} processes"
    if kills and memory["of_job"]:
        limit = f" at its limit of {memory['limit_mb']} MB" if memory["limit_mb"] else ""
        return TaskVerdict("failed", f"ran out of memory {where}: the kernel killed {processes} of it{limit}", True)
    if kills:
        meanwhile = f"the kernel of {node} killed {processes} for lack of memory meanwhile, perhaps of this job"
        return TaskVerdict("failed", f"failed {where}; {meanwhile}", True, unclear=True)
    if returncode == -9:
        perhaps = "; perhaps for lack of memory" if kills is None else ""
        return TaskVerdict("failed", f"was killed (signal 9) {where}{perhaps}", unclear=True)
    ended = f"was ended by signal {-returncode}" if returncode < 0 else "failed"
    return TaskVerdict("failed", f"{ended} {where}", unclear=True)


def judge_state(task: Task, state: State | None, now: float, latency_s: float, requeue_limit: int) -> TaskVerdict:
    """From what Slurm says about a task without an outcome file; `state` None: Slurm doesn't know it any more.

    The outcome file may show up late on a network file system, so the end counts only `latency_s` after it was seen.
    """
    task.state = state
    if state is not None and state.alive:
        task.ended_since = None
        return WAITING
    if state is not None and state.stuck:
        return TaskVerdict("failed", f"Slurm holds it and will not start it again: {state.detail or state.state}")
    if task.ended_since is None:
        task.ended_since = now
    if now - task.ended_since < latency_s:
        return WAITING
    if state is None:
        return TaskVerdict("failed", "vanished from Slurm without an outcome; was the controller's state lost?")
    name = state.state
    explained = {
        "TIMEOUT": "reached its time limit before it could be requeued",
        "OUT_OF_MEMORY": "ran out of memory",
        "CANCELLED": "was cancelled" + (f" {state.detail}" if state.detail.startswith("by") else ""),
        "PREEMPTED": "was cancelled by a preemption",
        "NODE_FAIL": "lost its node",
        "BOOT_FAIL": "got a node that did not start",
        "DEADLINE": "reached its deadline",
        "FAILED": "ended without an outcome",
        "COMPLETED": "ended without an outcome",
    }.get(name, "ended")
    reason = f"{explained} ({name}{', ' + state.detail if state.detail and 'by' not in state.detail else ''})"
    if name == "FAILED" and not task.started.exists() and not task.log.exists():
        has = "did not begin, and left no log: see whether its node has this folder and may write to it"
        return TaskVerdict("failed", f"{has}: {task.folder} ({state.detail or name})", unclear=True)
    if name == "TIMEOUT" and not task.resumable and not task.leaves:
        return TaskVerdict("failed", f"reached its time limit; {LONGER_OR_RESUMABLE}")
    if name in INFRASTRUCTURE:
        limit = requeue_limit if task.requeue_limit is None else task.requeue_limit
        if task.leaves or task.requeues_used < limit:
            return TaskVerdict("again", reason)
        reason += f"; requeue limit: {limit}"
    return TaskVerdict("failed", reason, name == "OUT_OF_MEMORY", unclear=name in ("OUT_OF_MEMORY", "FAILED"))
