"""Leaving early in step: one rank looks at the stop file and the clock, all ranks act at the same step boundary."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch
import torch.distributed as dist

EXIT_CODE = 75  # EX_TEMPFAIL: nothing is wrong, start the same command again


class StopRequestedError(Exception):
    """Raised at a step boundary once a stop was asked for; the loop saves its state and leaves."""


class StopCheck:
    """Stop requests come as a file (from a scheduler's hook), as SIGTERM or as Ctrl-C.

    Ranks that look for themselves would see the file at different steps and wait for each other for ever; so rank
    0's view, or that of a rank that got the signal, is summed over all.
    """

    def __init__(self, stop_file: Path | None):
        self.stop_file = stop_file
        self.signalled = False

    def install(self) -> None:
        """React to SIGTERM and to the first Ctrl-C by stopping at the next boundary."""
        signal.signal(signal.SIGTERM, self._on_signal)
        if signal.getsignal(signal.SIGINT) == signal.default_int_handler:  # not where a shell ignores it
            signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, number: int, _: object) -> None:
        self.signalled = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.write(2, b"\npromptecho: saves and leaves at the next step boundary; Ctrl-C again ends it at once\n")

    def __call__(self) -> None:
        """Collective. Raises StopRequestedError on all ranks together."""
        seen = self.signalled or (dist.get_rank() == 0 and self.stop_file is not None and self.stop_file.exists())
        if dist.get_world_size() > 1:
            flag = torch.tensor([int(seen)])
            dist.all_reduce(flag)
            seen = bool(flag.item())
        if seen:
            raise StopRequestedError
