"""How long a failing endpoint is waited for, and whether it is away for all or fails on one question."""

from __future__ import annotations

import random
import sys
import threading
import time
from dataclasses import dataclass

from promptecho.judges.names import MessageNames
from promptecho.seeds import derive_seed


@dataclass(frozen=True)
class Backoff:
    """Pauses in seconds before a failing endpoint is asked again: doubling from `initial` to `longest`, plus up to
    `jitter`, which is drawn from the question's own seed. An endpoint's own Retry-After counts where it is longer.

    `outage_s`: how long an endpoint without any reply is waited for. `alone_s`: how long where all but one question are
    answered, so that the failure may be that one's own. `quiet_s`: an outage this short is not told.
    """

    initial: float = 1.0
    longest: float = 60.0
    jitter: float = 1.0
    outage_s: float = 900.0
    alone_s: float = 120.0
    quiet_s: float = 5.0

    def pause(self, key: str, nth: int) -> float:
        """Seconds to wait before the question of `key` is asked again after its `nth` failure in a row (from 1)."""
        drawn = random.Random(derive_seed("judge pause", key, nth)).random()
        return min(self.longest, self.initial * 2 ** min(nth - 1, 60)) + self.jitter * drawn


class Patience:
    """The outages of one endpoint, shared by the threads that ask it."""

    def __init__(self, wording: MessageNames, backoff: Backoff):
        self.backoff, self._wording = backoff, wording
        self.replies = 0  # of any kind: each shows that the endpoint is there
        self._since: float | None = None
        self._told = False
        self._lock = threading.Lock()

    def replied(self) -> None:
        """The endpoint answered."""
        with self._lock:
            self.replies += 1
            told, since, self._told, self._since = self._told, self._since, False, None
        if told and since is not None:
            print(f"{self._wording.who}: answers again after {time.monotonic() - since:.0f} s", file=sys.stderr)

    def failed(self, reason: str) -> float:
        """The endpoint did not answer; returns the seconds for which nobody had a reply. Reports an outage once."""
        with self._lock:
            now = time.monotonic()
            self._since = now if self._since is None else self._since
            away = now - self._since
            tell = not self._told and away >= self.backoff.quiet_s
            self._told |= tell
        if tell:
            print(
                f"{self._wording.who}: {reason}; waiting for it up to {self.backoff.outage_s:g} s "
                f"({self._wording.outage_key}); all replies are recorded",
                file=sys.stderr,
            )
        return away
