"""Every submission, written down before sbatch is called, so that a killed Snakemake loses and doubles nothing.

`ledger.jsonl` holds one event a line: `intent` (before sbatch), `submitted` (with the Slurm id), `ended` (one task).
Lines are flushed to disk one by one; a line cut by a kill is the last one and is dropped when read.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """A task of a submission, as far as a later Snakemake needs to know it."""

    key: str  # of its outputs
    fingerprint: str  # of what decides them: rule, wildcards, inputs, parameters
    request: str  # of its Slurm resources
    name: str


@dataclass
class Submission:
    """One call of sbatch."""

    token: str
    folder: str
    entries: list[Entry]
    slurm_id: str | None = None  # None: the call of sbatch may or may not have got through
    ended: dict[int, str] = field(default_factory=dict)  # outcome by index
    resubmissions: int = 0
    under_way: bool = False  # this process calls sbatch now
    time: float = field(default_factory=time.time)

    def job_id(self, index: int) -> str | None:
        return None if self.slurm_id is None else task_id(self.slurm_id, index, len(self.entries))

    @property
    def open_indices(self) -> list[int]:
        return [index for index in range(len(self.entries)) if index not in self.ended]


def task_id(slurm_id: str, index: int, n: int) -> str:
    """Slurm's id of one of `n` tasks that were submitted together; one alone is no array."""
    return slurm_id if n == 1 else f"{slurm_id}_{index}"


class Ledger:
    """The ledger file of one log folder. Snakemake's lock of the working directory makes it the only writer."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()  # Snakemake's main thread submits, another one sees jobs end
        self.submissions: dict[str, Submission] = {}
        if path.exists():
            self._read()
            self._compact()

    def intend(self, submission: Submission) -> None:
        self.submissions[submission.token] = submission
        self._append(self._intent(submission))

    def submitted(self, submission: Submission, slurm_id: str) -> None:
        submission.slurm_id = slurm_id
        self._append({"event": "submitted", "token": submission.token, "slurm_id": slurm_id})

    def ended(self, submission: Submission, index: int, outcome: str) -> None:
        """`outcome`: success, failed, cancelled, again (a new submission follows), replaced, or never (submitted)."""
        submission.ended[index] = outcome
        self._append({"event": "ended", "token": submission.token, "index": index, "outcome": outcome})
        if not submission.open_indices:
            self.submissions.pop(submission.token, None)

    def open_tasks(self) -> Iterable[tuple[Submission, int]]:
        for submission in list(self.submissions.values()):
            for index in submission.open_indices:
                yield submission, index

    def _intent(self, submission: Submission) -> dict:
        return {
            "event": "intent",
            "time": submission.time,
            "token": submission.token,
            "folder": submission.folder,
            "resubmissions": submission.resubmissions,
            "entries": [asdict(entry) for entry in submission.entries],
        }

    def _append(self, *events: dict) -> None:
        with self._lock:
            new = not self.path.exists()
            _append_lines(self.path, events)
            if new:
                _sync_folder(self.path.parent)

    def _read(self) -> None:
        for line in self.path.read_bytes().split(b"\n")[:-1]:  # what follows the last newline was cut by a kill
            event = json.loads(line)
            token = event["token"]
            if event["event"] == "intent":
                self.submissions[token] = Submission(
                    token, event["folder"], [Entry(**entry) for entry in event["entries"]],
                    resubmissions=event["resubmissions"], time=event["time"],
                )  # fmt: skip
            elif token not in self.submissions:
                continue
            elif event["event"] == "submitted":
                self.submissions[token].slurm_id = event["slurm_id"]
            else:
                self.submissions[token].ended[event["index"]] = event["outcome"]
        self.submissions = {t: s for t, s in self.submissions.items() if s.open_indices}

    def _compact(self) -> None:
        """Keep open submissions only; renamed into place, so that a kill leaves the old file or the new one."""
        events = []
        for submission in self.submissions.values():
            events.append(self._intent(submission))
            if submission.slurm_id is not None:
                events.append({"event": "submitted", "token": submission.token, "slurm_id": submission.slurm_id})
            events += [
                {"event": "ended", "token": submission.token, "index": index, "outcome": outcome}
                for index, outcome in submission.ended.items()
            ]
        temporary = self.path.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)
        _append_lines(temporary, events)
        temporary.replace(self.path)
        _sync_folder(self.path.parent)


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
