"""Every submission, written down before sbatch is called, so that a killed Snakemake loses and doubles nothing.

`ledger.jsonl` holds one event a line: `intent` (before sbatch, with the process that submits), `submitted` (with the
Slurm id), `taken` (tasks that another process has taken up), `cancelled` (a task that may take a while to end), `ended`
(one task). Lines are flushed to disk one by one; a line cut by a kill is the last one and is dropped when read.

Several processes may write: each under the lock of the file `ledger.lock`, after reading what the others have written.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from snakemake_interface_common.exceptions import WorkflowError

from .owners import Owner, this_process

WITHOUT_LEDGER = (
    "jobs can't be followed without it. Those in the queue go on (squeue --me); wait for their end, or cancel them, "
    "before you start Snakemake again"
)


@dataclass(frozen=True)
class Entry:
    """A task of a submission, as far as a later Snakemake needs to know it."""

    key: str  # of its outputs
    fingerprint: str  # of what decides them: rule, wildcards, inputs, parameters
    request: str  # of its Slurm resources
    name: str
    code: str = ""  # of the command or script that makes them; empty: of a version that did not write it
    members: tuple[tuple[str, str, str], ...] = ()  # of a group: key, fingerprint and code of each of its jobs

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(tuple(one) for one in self.members))  # JSON has lists

    @property
    def keys(self) -> list[str]:
        """Of the single jobs in it. A next start may ask for a part of a group, or group jobs otherwise."""
        return [key for key, _, _ in self.members] or [self.key]


@dataclass
class Submission:
    """One call of sbatch."""

    token: str
    folder: str
    entries: list[Entry]
    slurm_id: str | None = None  # None: the call of sbatch may or may not have got through
    ended: dict[int, str] = field(default_factory=dict)  # outcome by index
    cancelled: set[int] = field(default_factory=set)  # of those that may not have ended
    resubmissions: int = 0
    under_way: bool = False  # this process calls sbatch now
    time: float = field(default_factory=time.time)
    owner: Owner | None = field(default_factory=this_process)  # None: of a version that did not write it
    takers: dict[int, Owner] = field(default_factory=dict)  # who has taken a task up since, by index

    def owner_of(self, index: int) -> Owner | None:
        return self.takers.get(index, self.owner)

    def job_id(self, index: int) -> str | None:
        return None if self.slurm_id is None else task_id(self.slurm_id, index, len(self.entries))

    @property
    def open_indices(self) -> list[int]:
        return [index for index in range(len(self.entries)) if index not in self.ended]


def task_id(slurm_id: str, index: int, n: int) -> str:
    """Slurm's id of one of `n` tasks that were submitted together; one alone is no array."""
    return slurm_id if n == 1 else f"{slurm_id}_{index}"


class Ledger:
    """The ledger file of one log folder, as this process and others have written it.

    Without locks, which some file systems don't have, it is rewritten only when all other processes are `gone`.
    """

    def __init__(self, path: Path, gone: Callable[[Owner | None], bool] = lambda owner: True):
        self.path, self._gone = path, gone
        self.locks = True  # the file system has them
        self._lock = threading.Lock()  # Snakemake's main thread submits, another one sees jobs end
        self._read = (-1, 0)  # which rewriting of the file, up to which byte
        self._rewritings = 0
        self.submissions: dict[str, Submission] = {}
        if path.exists():
            with self._alone() as lock:
                self._catch_up()
                others = {s.owner_of(index) for s, index in self.open_tasks()}
                if self.locks or all(owner == this_process() or gone(owner) for owner in others):
                    self._compact(lock)

    def intend(self, submission: Submission) -> dict[int, Owner]:
        """Write it down, unless others that are there make some of its outputs already.

        Returns:
            Those, by index; then nothing was written.
        """
        with self._alone():
            self._catch_up()
            indices = {key: index for index, entry in enumerate(submission.entries) for key in entry.keys}
            taken = self._taken_by_others(indices)
            if not taken:
                self._write(self._intent(submission))
                self.submissions[submission.token] = submission
        return taken

    def submitted(self, submission: Submission, slurm_id: str) -> None:
        submission.slurm_id = slurm_id
        self._append({"event": "submitted", "token": submission.token, "slurm_id": slurm_id})

    def take(self, tasks: Sequence[tuple[Submission, int]]) -> None:
        """This process continues tasks of processes that have ended.

        Raises:
            WorkflowError: it can't be written.
        """
        me = this_process()
        events = []
        for submission, index in tasks:
            if submission.owner_of(index) != me:
                submission.takers[index] = me
                events.append(self._taken(submission, index))
        self._note(*events)

    def cancelled(self, tasks: Sequence[tuple[Submission, int]]) -> None:
        """They stay open: Slurm gives a job time to end, and a next start must not begin beside it.

        Raises:
            WorkflowError: it can't be written.
        """
        for submission, index in tasks:
            submission.cancelled.add(index)
        self._note(*(self._cancelled(*one) for one in tasks))

    def ended(self, submission: Submission, index: int, outcome: str) -> None:
        """`outcome`: success, failed, again (a new submission follows), replaced, or never (submitted).

        Raises:
            WorkflowError: it can't be written, for instance because somebody has removed the log folder.
        """
        submission.ended[index] = outcome
        self._note({"event": "ended", "token": submission.token, "index": index, "outcome": outcome})
        if not submission.open_indices:
            self.submissions.pop(submission.token, None)

    def open_tasks(self) -> Iterable[tuple[Submission, int]]:
        for submission in list(self.submissions.values()):
            for index in submission.open_indices:
                yield submission, index

    def refresh(self) -> bool:
        """Read what others have written since; whether they have.

        Raises:
            OSError, ValueError: the file can't be read.
        """
        if not self.path.exists():
            return False
        with self._alone():
            return self._catch_up()

    def _intent(self, submission: Submission) -> dict:
        return {
            "event": "intent",
            "time": submission.time,
            "token": submission.token,
            "folder": submission.folder,
            "resubmissions": submission.resubmissions,
            "entries": [asdict(entry) for entry in submission.entries],
            "owner": None if submission.owner is None else asdict(submission.owner),
        }

    def _taken(self, submission: Submission, index: int) -> dict:
        owner = asdict(submission.takers[index])
        return {"event": "taken", "token": submission.token, "index": index, "owner": owner}

    def _cancelled(self, submission: Submission, index: int) -> dict:
        return {"event": "cancelled", "token": submission.token, "index": index}

    @contextlib.contextmanager
    def _alone(self) -> Iterator[int]:
        """While no other thread or process reads or writes. The system ends the lock of a process that is killed."""
        with self._lock:
            descriptor = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                try:
                    fcntl.lockf(descriptor, fcntl.LOCK_EX)
                except OSError:
                    self.locks = False
                # One byte for each time that the file was rewritten. Its inode would not do: numbers are used again.
                self._rewritings = os.fstat(descriptor).st_size
                yield descriptor
            finally:
                os.close(descriptor)

    def _note(self, *events: dict) -> None:
        try:
            if events:
                self._append(*events)
        except OSError as error:
            gone = "" if self.path.parent.exists() else " (somebody has removed the log folder)"
            raise WorkflowError(f"{error.filename or self.path}: {error.strerror}{gone}; {WITHOUT_LEDGER}") from None

    def _append(self, *events: dict) -> None:
        with self._alone():
            self._catch_up()
            self._write(*events)

    def _write(self, *events: dict) -> None:
        new = not self.path.exists()
        _append_lines(self.path, events)
        self._read = self._rewritings, self.path.stat().st_size
        if new:
            _sync_folder(self.path.parent)

    def _taken_by_others(self, indices: Mapping[str, int]) -> dict[int, Owner]:
        found = {}
        for submission, index in self.open_tasks():
            owner = submission.owner_of(index)
            for key in indices.keys() & submission.entries[index].keys:
                if owner not in (None, this_process()) and not self._gone(owner):
                    found[indices[key]] = owner
        return found

    def _catch_up(self) -> bool:
        """Apply what is new in the file; whether anything is.

        What follows the last newline was cut by a kill, and is cut off here.
        """
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            rewriting, begin = self._read
            if rewriting != self._rewritings or os.fstat(file.fileno()).st_size < begin:
                begin = 0
            file.seek(begin)
            new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            for line in whole.splitlines():
                self._apply(json.loads(line))
            self._read = self._rewritings, begin + len(whole)
            if len(whole) < len(new):
                os.truncate(self.path, begin + len(whole))  # or the next line would be spoilt by it
            return bool(whole)
        return False

    def _apply(self, event: dict) -> None:
        """Also an event that is known already, as after another process has rewritten the file."""
        token = event["token"]
        one = self.submissions.get(token)
        if event["event"] == "intent":
            if one is None:
                self.submissions[token] = Submission(
                    token, event["folder"], [Entry(**entry) for entry in event["entries"]],
                    resubmissions=event["resubmissions"], time=event["time"], owner=_owner(event),
                )  # fmt: skip
        elif one is None:
            return
        elif event["event"] == "submitted":
            one.slurm_id = event["slurm_id"]
        elif event["event"] == "taken":
            one.takers[event["index"]] = Owner(**event["owner"])
        elif event["event"] == "cancelled":
            one.cancelled.add(event["index"])
        else:
            one.ended[event["index"]] = event["outcome"]
            if not one.open_indices:
                del self.submissions[token]

    def _compact(self, lock: int) -> None:
        """Keep open submissions only; renamed into place, so that a kill leaves the old file or the new one."""
        events = []
        for submission in self.submissions.values():
            events.append(self._intent(submission))
            if submission.slurm_id is not None:
                events.append({"event": "submitted", "token": submission.token, "slurm_id": submission.slurm_id})
            events += [self._taken(submission, index) for index in submission.takers]
            events += [self._cancelled(submission, index) for index in sorted(submission.cancelled)]
            events += [
                {"event": "ended", "token": submission.token, "index": index, "outcome": outcome}
                for index, outcome in submission.ended.items()
            ]
        temporary = self.path.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)
        _append_lines(temporary, events)
        self._rewritings += 1  # told to the others first: if a kill comes in between, they read the same file again
        os.ftruncate(lock, self._rewritings)  # by this descriptor: closing another one would end the lock
        self._read = self._rewritings, temporary.stat().st_size
        temporary.replace(self.path)
        _sync_folder(self.path.parent)


def _owner(event: dict) -> Owner | None:
    owner = event.get("owner")
    return None if owner is None else Owner(**owner)


def _append_lines(path: Path, events: Iterable[dict]) -> None:
    text = "".join(json.dumps(event, sort_keys=True) + "\n" for event in events)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        try:
            rest = text.encode()
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)  # half a line would spoil the next one
            raise
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
