"""Signals to Snakemake: Ctrl-C, SIGTERM and SIGHUP end it at once, but never between sbatch and the ledger."""

from __future__ import annotations

import signal
from contextlib import contextmanager

from .slurm import ENDING


class Signals:
    """Remembers the signal that ends this process. Snakemake's own SIGTERM handler would wait for all jobs."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._busy = False

    def install(self) -> None:
        """Take the handlers over; Snakemake sets its own after it has made the executor, so this comes later."""
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            try:
                if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                    signal.signal(number, self._on_signal)
            except ValueError:
                return  # not the main thread: whoever runs Snakemake there deals with signals

    @contextmanager
    def held_back(self):
        """In this block a first signal waits until its end; a second one does not."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
            if self.received is not None:
                raise KeyboardInterrupt

    @property
    def interrupted(self) -> bool:
        return self.received == signal.SIGINT

    def _on_signal(self, number: int, _frame: object) -> None:
        again, self.received = self.received is not None, number
        ENDING.now = True
        if again or not self._busy:
            raise KeyboardInterrupt  # which Snakemake answers with the executor's cancel()
