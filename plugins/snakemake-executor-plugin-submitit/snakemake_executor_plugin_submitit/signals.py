"""Signals to Snakemake: Ctrl-C, SIGTERM and SIGHUP end it at once, but never between sbatch and the ledger."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time

from .slurm import ENDING

_SAME_S = 10.0  # what an sbatch or scancel that answers and the end of the watching thread may take


class Signals:
    """Remembers the first signal that ends this process. Snakemake's own SIGTERM handler would wait for all jobs.

    Others that follow it closely mean the same: keys come in twos, and both a terminal and `timeout` or a wrapper send
    them to a whole group. They must not break into the end that has begun. Later ones do: the user has waited too long.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self.logger = logger
        self.received: int | None = None
        self._since = 0.0
        self._busy = False

    def install(self) -> None:
        """Take the handlers over; Snakemake sets its own after it has made the executor, so this comes later."""
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            try:
                if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                    signal.signal(number, self._on_signal)
            except ValueError:
                return  # not the main thread: whoever runs Snakemake there deals with signals

    @contextlib.contextmanager
    def held_back(self):
        """In this block a signal waits until its end, but not one that comes long after the first."""
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
        now, ENDING.now = time.monotonic(), True
        if self.received is None:
            self.received, self._since = number, now
            speak_to_nobody(self.logger)
            if self._busy:
                return
        elif now - self._since < _SAME_S:
            return
        raise KeyboardInterrupt  # which Snakemake answers with the executor's cancel()


class _Unread:
    """A stream that may have lost its reader."""

    def __init__(self, stream) -> None:
        self._stream = stream

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except BrokenPipeError:
            self._write_nowhere()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._write_nowhere()

    def _write_nowhere(self) -> None:
        """What the stream has kept is written again at Python's end, which would then exit with 120."""
        with contextlib.suppress(OSError, ValueError):  # a stream without a descriptor
            nowhere = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(nowhere, self._stream.fileno())
            finally:
                os.close(nowhere)


def speak_to_nobody(logger: logging.Logger) -> None:
    """From now on it is no error if the reader of the log has ended.

    A Ctrl-C ends `tee` first, in `snakemake ... | tee log`. What Snakemake then says before it calls the executor's
    `cancel` would raise, and the jobs would go on uncancelled and unsaid.
    """
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is not None:
            handler.stream = _Unread(handler.stream)
