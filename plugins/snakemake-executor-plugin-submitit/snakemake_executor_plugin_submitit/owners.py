"""Which Snakemake a submission belongs to, and whether that one is still there.

Two Snakemakes may work in one folder with different targets and share the ledger. One settles the other's submissions
only when the other has ended. On the same machine the process table shows that. For another machine there is a file per
process, `owners/NAME`, which its owner touches now and then and removes at its end.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

BEAT_S = 30
SILENCE_S = 300  # of an owner on another machine, until it counts as ended


@dataclass(frozen=True)
class Owner:
    """One process. `machine` is a boot of a host and a space of process ids in it, since containers have their own;
    `start` (of the process, in the kernel's ticks) distinguishes it from a later one with the same pid."""

    host: str
    machine: str
    pid: int
    start: int

    @property
    def file_name(self) -> str:
        return re.sub(r"[^\w.-]", "_", f"{self.host}-{self.pid}-{self.start}")

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@functools.cache
def this_process() -> Owner:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    start = _start_of(os.getpid())
    assert start is not None
    return Owner(socket.gethostname(), f"{boot} {os.readlink('/proc/self/ns/pid')}", os.getpid(), start)


class Owners:
    """The owners' files of one log folder."""

    def __init__(self, folder: Path):
        self.folder = folder / "owners"
        self.me = this_process()
        self._ended = threading.Event()

    def begin(self) -> None:
        """Be seen from other machines from now on.

        Raises:
            OSError: the file can't be written.
        """
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.file(self.me).touch()
        self._tidy()
        # Its own thread: the others may wait for minutes for Slurm's answer.
        threading.Thread(target=self._beat, daemon=True).start()

    def end(self) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):
            self.file(self.me).unlink(missing_ok=True)

    def file(self, owner: Owner) -> Path:
        return self.folder / owner.file_name

    def gone(self, owner: Owner | None) -> bool:
        """None: it was submitted by a version that wrote no owners."""
        if owner is None:
            return True
        if self.is_near(owner):
            try:
                return _start_of(owner.pid) != owner.start
            except OSError:
                return False  # no file descriptor left, say: not known now
        silence = self.silence(owner)
        return silence is None or silence > SILENCE_S

    def is_near(self, owner: Owner) -> bool:
        """Whether the process table answers for it at once."""
        return owner.machine == self.me.machine

    def silence(self, owner: Owner) -> float | None:
        """Seconds since an owner on another machine has touched its file; None if it has ended cleanly.

        By the clock of the file server, which both files have their times from.
        """
        try:
            last = self.file(owner).stat().st_mtime
        except FileNotFoundError:
            return None
        except OSError:
            return 0.0  # not known now
        probe = self.file(self.me)
        with contextlib.suppress(OSError):
            probe.touch()
            return max(probe.stat().st_mtime - last, 0.0)
        return 0.0

    def _tidy(self) -> None:
        """Remove the files of those that a kill has ended."""
        with contextlib.suppress(OSError):
            now = self.file(self.me).stat().st_mtime
            for path in self.folder.iterdir():
                if now - path.stat().st_mtime > 10 * SILENCE_S:
                    path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            with contextlib.suppress(OSError):  # a full or absent file system: once more, later
                if not self._ended.is_set():
                    self.file(self.me).touch()


def _start_of(pid: int) -> int | None:
    """When a process began, in ticks since the boot; None if there is none, or only its remains (a zombie).

    Raises:
        OSError: it can't be read now.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])
