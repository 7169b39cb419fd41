"""Jobs that the cluster takes no more of now: kept here, and submitted as others end.

A limit on jobs in the queue is one of the user, the account, the QOS or the whole cluster. How many still fit is not
asked but tried: an array that is refused is halved, a second later; when not even one job is taken, the next try comes
after a job has ended, or after a while, since other workflows' jobs count too. So few calls are made, however many
jobs wait.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

_STEP_S = 1.0  # between two calls of sbatch
_FIRST_S, _LONGEST_S = 2.0, 60.0  # between tries of one job: an ended one counts until it has completed
_ALONE_S = 20.0  # of refusals while no job of this user is in the queue


@dataclass
class JobBatch:
    """Jobs of one rule with the same resources."""

    jobs: list
    request: object
    resubmissions: int = 0
    part_of: JobBatch | None = None


@dataclass
class LimitQueue:
    """The jobs that wait for one limit, and what is known about how many fit."""

    batches: deque[JobBatch] = field(default_factory=deque)
    reason: str = ""  # in sbatch's words
    size: int = 1  # to be tried next
    too_many: int | None = None  # as many were refused; None: unknown
    full: bool = False  # none fitted, as far as is known
    due: float = 0.0
    pause: float = _FIRST_S
    alone_since: float | None = None  # not even one job is taken, and none is in the queue

    @property
    def n(self) -> int:
        return sum(len(batch.jobs) for batch in self.batches)

    def accepted(self, n: int, now: float) -> None:
        self.alone_since, self.full, self.pause, self.due = None, False, _FIRST_S, now + _STEP_S
        if self.too_many is None:
            self.size = 2 * n
            return
        self.too_many -= n
        if self.too_many > 1:
            self.size = _between(self.too_many)
        else:
            self.size, self.too_many, self.full, self.due = 1, None, True, now + _LONGEST_S

    def refused(self, n: int, now: float) -> None:
        if n > 1:
            self.size, self.too_many, self.due = _between(n), n, now + _STEP_S
        else:
            self.size, self.too_many, self.full, self.due = 1, None, True, now + self.pause
            self.pause = min(2 * self.pause, _LONGEST_S)

    def room_made(self, n: int, now: float) -> None:
        """`n` jobs have ended, so that as many more may fit as were known to."""
        if self.full:
            self.size, self.too_many, self.full = n, n + 1, False
        elif self.too_many is not None:
            self.size, self.too_many = self.size + n, self.too_many + n
        self.pause, self.due = _FIRST_S, min(self.due, now + _STEP_S)


class Kept:
    """All that is kept. The main thread puts jobs in, the watching one takes them out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[Hashable, LimitQueue] = {}
        self._closed = False

    def keep(self, scope: Hashable, batch: JobBatch, reason: str | None = None) -> None:
        """Behind what waits there already; with a `reason`, sbatch has just refused all of the batch."""
        with self._lock:
            new = scope not in self._lines
            line = self._lines.setdefault(scope, LimitQueue())
            line.batches.append(batch)
            if reason is not None:
                line.reason = reason
                if new:
                    line.refused(len(batch.jobs), time.monotonic())

    def __contains__(self, scope: Hashable) -> bool:
        with self._lock:
            return scope in self._lines

    def __len__(self) -> int:
        with self._lock:
            return sum(line.n for line in self._lines.values())

    def reasons(self) -> list[str]:
        with self._lock:
            return list(dict.fromkeys(line.reason for line in self._lines.values()))

    def room_made(self, n: int) -> None:
        with self._lock:
            now = time.monotonic()
            for line in self._lines.values():
                line.room_made(n, now)

    def take(self, most: int) -> tuple[Hashable, JobBatch] | None:
        """Jobs whose try is due, the longest waiting first; None: none is, or Snakemake ends."""
        with self._lock:
            now = time.monotonic()
            for scope, line in self._lines.items():
                if self._closed or line.due > now or not line.batches:
                    continue
                batch = line.batches[0]
                n = max(min(line.size, most), 1)
                taken, batch.jobs = batch.jobs[:n], batch.jobs[n:]
                if not batch.jobs:
                    line.batches.popleft()
                return scope, JobBatch(taken, batch.request, batch.resubmissions, batch)
            return None

    def accepted(self, scope: Hashable, batch: JobBatch) -> None:
        """Of jobs that were taken out: they are submitted, or have failed for a reason of their own."""
        with self._lock:
            line = self._lines[scope]
            line.accepted(len(batch.jobs), time.monotonic())
            if not line.batches:
                del self._lines[scope]

    def refused(self, scope: Hashable, batch: JobBatch, reason: str, alone: bool) -> list:
        """Of jobs that were taken out: they are kept again, at their old place.

        Returns:
            Those that never fit, and are not kept: `alone`, with no job of the user in the queue, even one of them was
            refused for a while; then all that ask for the same.
        """
        whole = batch.part_of
        assert whole is not None
        with self._lock:
            line, now = self._lines[scope], time.monotonic()
            line.reason = reason
            line.refused(len(batch.jobs), now)
            if not whole.jobs:
                line.batches.appendleft(whole)
            whole.jobs[:0] = batch.jobs
            if not alone:
                line.alone_since = None
                return []
            line.alone_since = now if line.alone_since is None else line.alone_since
            if now - line.alone_since < _ALONE_S:
                line.due = min(line.due, now + _ALONE_S / 2)
                return []
            same = [one for one in line.batches if one.request == batch.request]
            line.batches = deque(one for one in line.batches if one.request != batch.request)
            line.alone_since, line.due = None, now + _STEP_S
            if not line.batches:
                del self._lines[scope]
            return [job for one in same for job in one.jobs]

    def close(self) -> int:
        """Give out no more jobs. Returns how many are kept."""
        with self._lock:
            self._closed = True
            return sum(line.n for line in self._lines.values())


def _between(too_many: int) -> int:
    return max(min((too_many + 1) // 2, too_many - 1), 1)
