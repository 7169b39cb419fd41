"""A server that belongs to this process: started on a free port of this node, ended with it in any case."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from promptecho.cluster.ranks import PORTS
from promptecho.errors import DataError

TOLD = 5  # lines of a server's log that an error repeats
LINE = 200  # characters of each


class LocalServer:
    """A running command; `port` is the one that it was told to listen at, `log` holds what it has said."""

    def __init__(self, process: subprocess.Popen, port: int, log: Path, begin: int):
        self.process, self.port, self.log = process, port, log
        self._begin = begin  # of this start, in the log

    def ended(self) -> str | None:
        """How the command has ended, in words, with its last lines; None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        how = f"was ended by signal {code - 128}" if code > 128 else f"ended with exit code {code}"
        return f"{how}; its last lines: {' | '.join(self.last_lines()) or 'none'}; all of them: {self.log}"

    def last_lines(self, count: int = TOLD) -> list[str]:
        with open(self.log, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._begin, size - count * 4 * LINE))
            lines = file.read().decode("utf-8", "replace").splitlines()
        return [line.strip()[:LINE] for line in lines if line.strip()][-count:]


@contextlib.contextmanager
def local_server(command: str, values: Mapping[str, str], log: Path) -> Iterator[LocalServer]:
    """Run `command` (for bash) until the block is left.

    Args:
        command: `{port}` and the names of `values` in braces stand for a free port and for these, quoted for a shell.
        log: what it says is added here.

    Raises:
        DataError: the log cannot be written.
    """
    with _held_port() as port:
        words = {**values, "port": str(port)}
        for name, value in words.items():
            command = command.replace(f"{{{name}}}", shlex.quote(value))
        reading, writing = os.pipe()
        os.set_inheritable(reading, True)
        try:
            file = _opened(log, command)
            try:
                begin = file.tell()
                process = subprocess.Popen(
                    [sys.executable, "-m", "promptecho.cluster.guard", str(reading), "bash", "-c", command],
                    stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                    close_fds=False,  # a lease of GPUs (cluster/leases.py) lasts as long as the server
                    start_new_session=True,  # a terminal's Ctrl-C reaches this process alone
                )  # fmt: skip
            finally:
                file.close()
        except BaseException:
            os.close(writing)
            raise
        finally:
            os.close(reading)
        try:
            yield LocalServer(process, port, log, begin)
        finally:
            os.close(writing)
            process.wait()


def _opened(log: Path, command: str) -> BinaryIO:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        file = open(log, "ab")  # noqa: SIM115 -- the caller closes it
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} on {socket.gethostname()}: {command}\n".encode())
        file.flush()
    except OSError as error:
        raise DataError(f"{log}: cannot write the server's log ({error.strerror}); allow it") from None
    return file


@contextlib.contextmanager
def _held_port() -> Iterator[int]:
    """A port at which nobody listens on this node, and that no other job of this user is given meanwhile."""
    folder = Path(f"/tmp/promptecho-ports-{os.geteuid()}")  # not $TMPDIR: jobs may have their own
    while True:
        port = random.choice(PORTS)
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            held = os.open(folder / str(port), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise DataError(f"{folder}: cannot note which ports are taken ({error.strerror}); see to it") from None
        try:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with socket.socket() as one:
                    one.bind(("", port))
            except OSError:
                continue
            yield port
            return
        finally:
            os.close(held)
