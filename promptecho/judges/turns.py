"""Which question is asked next, where some failed and are to be asked again later."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from promptecho.judges.prepare import Prepared


@dataclass
class Trouble:
    """What befell one question: its calls, failed ones in a row, how many replies there had been to anybody at the last
    of them, and the failures that count against it."""

    calls: int = 0
    failed: int = 0
    replies: int = 0
    strikes: int = 0


class QuestionQueue:
    """Gives out the next question: the questions in their order, and postponed ones once their waiting time is over."""

    def __init__(self) -> None:
        self._queue: deque[Prepared] = deque()
        self._put_off: list[tuple[float, int, Prepared]] = []
        self._counter = itertools.count()
        self._lock = threading.Lock()

    def extend(self, questions: Sequence[Prepared]) -> None:
        self._queue.extend(questions)

    def put_off(self, one: Prepared, seconds: float) -> None:
        with self._lock:
            heapq.heappush(self._put_off, (time.monotonic() + seconds, next(self._counter), one))

    def take(self, *, after_failure: bool) -> tuple[Prepared | None, float | None]:
        """The next question; or None and the seconds until there may be one, or None twice at the end. After a failure
        a question that was not asked yet comes first: it shows whether the endpoint is away for all."""
        with self._lock:
            wait = self._put_off[0][0] - time.monotonic() if self._put_off else None
            if wait is not None and wait <= 0 and not (after_failure and self._queue):
                return heapq.heappop(self._put_off)[-1], None
            return (self._queue.popleft(), None) if self._queue else (None, wait if wait is None else max(wait, 0.0))
