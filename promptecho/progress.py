"""Progress of long work with rate and time left: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

LOG_INTERVAL_S = 10.0


class Progress:
    """Counts finished items; `done` items were finished by an earlier run and don't count for the rate."""

    def __init__(self, what: str, total: int, unit: str, done: int = 0, stream=None):
        self.what, self.total, self.unit, self.count, self.skipped = what, total, unit, done, done
        self.stream = stream or sys.stderr
        self.start = self.last = time.monotonic()

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count `n` more items; prints at most every 10 s, and always at the end."""
        self.count += n
        now = time.monotonic()
        if now - self.last >= LOG_INTERVAL_S or self.count >= self.total:
            self.last = now
            self._print(now, note)

    def _print(self, now: float, note: str) -> None:
        rate = (self.count - self.skipped) / max(now - self.start, 1e-9)
        left = (self.total - self.count) / rate if rate > 0 else float("inf")
        end = f"done in {now - self.start:.0f} s" if self.count >= self.total else f"{_duration(left)} left"
        line = f"{self.what}: {self.count}/{self.total} {self.unit}, {rate:.3g}/s, {end}"
        print(f"{line}; {note}" if note else line, file=self.stream, flush=True)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def progress(what: str, total: int, unit: str, done: int = 0) -> Iterator[Progress]:
    """Announce the work, then yield its counter."""
    bar = Progress(what, total, unit, done)
    resumed = f", {done} already done" if done else ""
    print(f"{what}: {total} {unit}{resumed}", file=bar.stream, flush=True)
    yield bar
