"""Leases: which process has which GPU of this machine, so that no two use one by accident.

A lease is a lock (flock) on the GPU's file in a folder of this host and user. The kernel gives it back when the last
process that holds the open file is gone, however it ended. So leases hold across several Snakemakes and survive none
of their jobs. A process that wants GPUs gets all of them at once or none, in the order of asking, so no process waits
for one that waits itself; processes that ask for different GPUs do not wait for each other.

The files' contents say who holds or waits; they are for people, and only the locks count.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from promptecho.errors import ConfigError, DataError, counted

POLL_S = 0.5


def default_folder() -> Path:
    """One per user of this host. Not $TMPDIR or $XDG_RUNTIME_DIR: jobs may have their own, and the latter ends with
    the last login."""
    return Path(f"/tmp/promptecho-gpus-{os.geteuid()}")


@dataclass(frozen=True)
class Holder:
    """Who holds or wants GPUs."""

    pid: int
    command: str
    since: str
    count: int = 1
    devices: list[str] = field(default_factory=list)  # of a request: those to choose from

    def __str__(self) -> str:
        return f"process {self.pid} since {self.since} ({self.command})"


class Leases:
    """The leases of `devices`, UUIDs, kept in `folder`."""

    def __init__(self, folder: Path, devices: Sequence[str]):
        self.folder, self.devices = Path(folder), list(devices)

    def take(self, count: int, command: str, say: Callable[[str], None], *, poll_s: float = POLL_S) -> list[str]:
        """Wait for `count` of the devices and lease them; they stay leased while this process, or one that it turns
        into or starts with open files, lives.

        Raises:
            ConfigError: there are fewer devices, or a process that this one was started by holds those that lack.
            DataError: the folder is another user's, or can't be written.
        """
        if count > len(self.devices):
            there = f"{'is' if len(self.devices) == 1 else 'are'} {len(self.devices)} ({', '.join(self.devices)})"
            raise ConfigError(f"{counted(count, 'GPU is', 'GPUs are')} wanted, but there {there}: ask for fewer")
        self._open_folder()
        now = datetime.now().isoformat(" ", "seconds")
        request = Holder(os.getpid(), command, now, count, self.devices)
        ticket: Path | None = None
        said = None
        try:
            while True:
                with self._gate():
                    if ticket is None:
                        ticket, _ticket_lock = self._queue(request)
                    ahead = self._ahead(ticket)
                    taken = {} if ahead else self._try(count, Holder(os.getpid(), command, now))
                    if taken:
                        ticket.unlink()
                        ticket = None
                        return list(taken)
                    holders = self._holders()
                    _refuse_ancestors(holders, count, len(self.devices))
                who = [f"{name} held by {holder}" for name, holder in holders.items()]
                who += [f"asked for before by {holder}" for holder in ahead]
                text = f"waiting for {count} of {len(self.devices)} GPUs: {'; '.join(who)}"
                if text != said:
                    say(text)
                    said = text
                time.sleep(poll_s)
        finally:
            if ticket is not None:
                ticket.unlink(missing_ok=True)

    def show(self) -> tuple[dict[str, Holder], list[Holder]]:
        """Who holds which device, and who waits, in the order of asking."""
        if not self.folder.is_dir():
            return {}, []
        self._open_folder()
        with self._gate():
            return self._holders(), self._ahead(None)

    # Files. All but `_open_folder` and `_gate` are called inside the gate.

    def _open_folder(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            facts = self.folder.lstat()
        except OSError as error:
            raise DataError(f"{self.folder}: can't hold the leases of GPUs ({error.strerror})") from error
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            raise DataError(
                f"{self.folder}: must be a folder of this user alone (mode 700), because it holds the leases of GPUs"
            )

    @contextlib.contextmanager
    def _gate(self) -> Iterator[None]:
        """Only one process at a time may look at the leases and decide."""
        file = os.open(self.folder / "gate", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)

    def _path(self, device: str) -> Path:
        return self.folder / f"gpu.{re.sub(r'[^A-Za-z0-9_.-]', '_', device)}"

    def _try(self, count: int, holder: Holder) -> dict[str, int]:
        """Lock `count` devices, or none."""
        taken: dict[str, int] = {}
        for device in self.devices:
            file = _lock(self._path(device))
            if file is not None:
                taken[device] = file
            if len(taken) == count:
                break
        else:
            for file in taken.values():
                os.close(file)
            return {}
        for file in taken.values():
            _write(file, holder)
            os.set_inheritable(file, True)  # the command takes the lease over
        # Cleaners of /tmp leave a locked folder alone.
        folder = os.open(self.folder, os.O_RDONLY)
        fcntl.flock(folder, fcntl.LOCK_SH)
        os.set_inheritable(folder, True)
        return taken

    def _holders(self) -> dict[str, Holder]:
        held = {}
        for device in self.devices:
            file = _lock(self._path(device))
            if file is None:
                held[device] = _read(self._path(device))
            else:
                os.close(file)
        return held

    def _queue(self, request: Holder) -> tuple[Path, int]:
        """A ticket behind all others; its lock shows that its owner is alive."""
        last = max((int(path.name.split(".")[1]) for path in self.folder.glob("wait.*")), default=0)
        path = self.folder / f"wait.{last + 1:09d}"
        file = _lock(path)
        assert file is not None, path
        _write(file, request)
        return path, file

    def _ahead(self, ticket: Path | None) -> list[Holder]:
        """Living requests before `ticket` that may want the same devices; all of them for None."""
        found = []
        for path in sorted(self.folder.glob("wait.*")):
            if ticket is not None and path >= ticket:
                break
            file = _lock(path)
            if file is not None:  # whoever waited is gone
                path.unlink()
                os.close(file)
                continue
            request = _read(path)
            if set(request.devices) & set(self.devices):
                found.append(request)
        return found


def _lock(path: Path) -> int | None:
    """The file, locked and open; None where another has it."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        os.close(file)  # a cleaner removed it between the two


def _write(file: int, holder: Holder) -> None:
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(holder.__dict__).encode(), 0)


def _read(path: Path) -> Holder:
    try:
        return Holder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return Holder(0, "unknown", "unknown")


def _refuse_ancestors(holders: dict[str, Holder], count: int, total: int) -> None:
    """Waiting for a process that waits for this one would never end."""
    above = _ancestors()
    ours = {device: holder for device, holder in holders.items() if holder.pid in above}
    if total - len(ours) < count:
        device, holder = next(iter(ours.items()))
        raise ConfigError(
            f"{counted(count, 'GPU is', 'GPUs are')} wanted inside of a command that holds them itself: {device} is "
            f"held by {holder}; start this one without `promptecho gpus run`"
        )


def _ancestors() -> set[int]:
    """This process, which may have held them before it became another program (exec), and its parents."""
    pid = os.getpid()
    found = {pid}
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError, ValueError):
            break
        found.add(pid)
    return found
