"""Ends a run that hangs, and says which rank hangs where.

Collective calls wait forever (or for a library's own time-out, which names no rank) when one rank is stuck. So every
rank notes where it is at each step boundary; a thread per rank writes that down beside the rolling state, and once
its own rank has not moved for `timeout_s` it compares all ranks, names those that are furthest behind, and ends its
process, after which the launcher ends the others. While models load, the limit is `load_timeout_s`: a slow disk is not
a hang, but a file system that never answers is.
"""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from promptecho.errors import DataError, counted
from promptecho.files import read_json, write_json
from promptecho.phases import LOADING, Phase
from promptecho.train.meter import resident_gb

EXIT_CODE = 70  # EX_SOFTWARE
ORDER = tuple(Phase)
TELL_S = 60.0  # between two lines about what is loading
SLOW = ", or raise that key if the models' disk is merely slow"


@dataclass(frozen=True)
class Position:
    """Where a rank is. `boundary`: how many times it has come to where all ranks meet."""

    rank: int
    iteration: int = 0
    phase: str = Phase.START
    step: int = 0
    host: str = ""
    pid: int = 0
    boundary: int = 0

    @property
    def order(self) -> tuple[int, int, int, int]:
        return self.iteration, self.boundary, ORDER.index(self.phase), self.step

    def __str__(self) -> str:
        return (
            f"rank {self.rank} ({self.host}, pid {self.pid}) in phase {self.phase}, step {self.step}, "
            f"of iteration {self.iteration}"
        )


def blame(positions: list[Position]) -> str:
    """Which of the ranks hold up the others, in words."""
    last = min(position.order for position in positions)
    behind = [position for position in positions if position.order == last]
    names = "; ".join(map(str, behind))
    if len(behind) < len(positions):
        others = counted(len(positions) - len(behind), "process", "processes")
        return f"{names}: {'it is' if len(behind) == 1 else 'they are'} behind the other {others}"
    if len(positions) == 1:
        return names
    return (
        f"all {len(positions)} processes are in phase {behind[0].phase}, step {behind[0].step}, of iteration "
        f"{behind[0].iteration}: the exchange between them hangs, look at the network"
    )


class Watchdog:
    """Call it at every step; `with` starts and ends its thread. `boundary` is counted by who knows where ranks meet.

    Args:
        folder: for the ranks' positions, on a file system that all ranks share.
        timeout_s: longest time between two boundaries.
        load_timeout_s: the same while models load.
    """

    def __init__(self, folder: Path, rank: int, world_size: int, timeout_s: float, load_timeout_s: float):
        self.folder, self.world_size = Path(folder), world_size
        self.timeout_s, self.load_timeout_s, self.boundary = timeout_s, load_timeout_s, 0
        self.position = Position(rank, host=socket.gethostname(), pid=os.getpid())
        self._interval = min(5.0, timeout_s / 5, load_timeout_s / 5)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._write()  # where an error was met

    def __call__(self, phase: str, iteration: int, step: int = 0) -> None:
        """This rank moved on."""
        self.position = replace(self.position, phase=phase, iteration=iteration, step=step, boundary=self.boundary)

    @property
    def _limit(self) -> tuple[str, float]:
        """The key that holds now, and its value."""
        if self.position.phase in LOADING:
            return "load_timeout_s", self.load_timeout_s
        return "timeout_s", self.timeout_s

    def _run(self) -> None:
        seen, waited, told = self.position, 0.0, 0.0
        last = time.monotonic()
        while not self._done.wait(self._interval):
            now = time.monotonic()
            # A process that was suspended as a whole (SIGSTOP, a scheduler's suspend) did not hang meanwhile.
            waited += min(now - last, 2 * self._interval)
            last = now
            if self.position != seen:
                seen, waited, told = self.position, 0.0, 0.0
                self._write()
            elif waited > self._limit[1]:
                self._end(waited)
            elif seen.phase in LOADING and seen.rank == 0 and waited - told >= TELL_S:
                told = waited
                self._tell_loading(waited)

    def _tell_loading(self, waited: float) -> None:
        holds = f"{resident_gb():.1f} GB in memory"
        print(
            f"promptecho: {self.position.phase} goes on for {waited:.0f} s, {holds}; it counts as hanging after "
            f"{self.load_timeout_s:.0f} s (training.load_timeout_s)",
            file=sys.stderr,
            flush=True,
        )

    def _write(self) -> None:
        try:
            write_json(self.folder / f"{self.position.rank}.json", asdict(self.position))
        except DataError as error:
            print(f"promptecho: {error}; a rank that hangs can't be named meanwhile", file=sys.stderr, flush=True)

    def positions(self) -> list[Position]:
        """All ranks' last written positions; a rank without a file never started."""
        found = []
        for rank in range(self.world_size):
            try:
                found.append(Position(**read_json(self.folder / f"{rank}.json")))
            except (DataError, TypeError):
                found.append(Position(rank, host="no position written", pid=0))
        return found

    def _end(self, waited: float) -> None:
        self._write()
        time.sleep(2 * self._interval)  # the others write down where they are
        key, limit = self._limit
        message = f"no step boundary for {waited:.0f} s (training.{key} is {limit:.0f}): "
        stack = self.folder / f"{self.position.rank}.stack.txt"
        try:
            with open(stack, "w") as file:
                faulthandler.dump_traceback(file)
        except OSError:
            stack = Path("nowhere, the disk refused it")
        print(
            f"promptecho: {message}{blame(self.positions())}. Stack of rank {self.position.rank}: {stack}. "
            f"The rolling state is good: start the same command again{SLOW if key == 'load_timeout_s' else ''}",
            file=sys.stderr,
            flush=True,
        )
        os._exit(EXIT_CODE)
