"""Writing behind the work: a thread writes what is finished while the next is computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType


class Writer:
    """Calls that one thread makes one after another, in their order; at most `ahead` of them are under way or wait.

    What a call raises is raised by a later `put`, or at the end of the `with` block, which waits for all calls; those
    behind it are not made. Left by an error or an interruption, the block waits for the call under way and makes no
    other.
    """

    def __init__(self, ahead: int = 2) -> None:
        self.ahead = ahead
        self._waiting: deque[Future[None]] = deque()
        self._failed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")

    def put(self, call: Callable[[], None]) -> None:
        """Have `call` made; waits while `ahead` others are not done."""
        while self._waiting and (self._waiting[0].done() or len(self._waiting) >= self.ahead):
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._make, call))

    def _make(self, call: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            call()
        except BaseException:
            self._failed = True
            raise

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            while kind is None and self._waiting:
                self._waiting.popleft().result()
        finally:
            self._thread.shutdown(cancel_futures=True)
