"""Run a command that ends with whoever started it, also after `kill -9`: with all processes that it has begun.

    python -m promptecho.cluster.guard FD COMMAND...

`FD` is the reading end of a pipe whose other end only the starter holds: when that closes, the command's processes get
SIGTERM, and after `PATIENCE_S` SIGKILL. Signals to this process itself are not its matter: the starter decides.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

PATIENCE_S = 10.0
PR_SET_CHILD_SUBREAPER = 36  # processes whose parent has ended become this one's children


def main(arguments: list[str]) -> int:
    if len(arguments) < 2 or not arguments[0].isdecimal():
        print("usage: python -m promptecho.cluster.guard FD COMMAND...", file=sys.stderr)
        return 2
    watched = int(arguments[0])
    os.set_inheritable(watched, False)
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda *_: None)  # not SIG_IGN, which the command would inherit
    try:
        process = subprocess.Popen(arguments[1:], start_new_session=True, stdin=subprocess.DEVNULL, close_fds=False)
    except OSError as error:
        print(f"promptecho: {arguments[1]}: can't be started ({error.strerror})", file=sys.stderr)
        return 127
    while process.poll() is None:
        if select.select([watched], [], [], 0.2)[0]:
            break  # nothing is ever written to it: this is its end
    _end_all(process)
    code = process.wait()
    return 128 - code if code < 0 else code


def _end_all(process: subprocess.Popen) -> None:
    """End the command, its process group, and whatever else it has begun."""
    deadline = time.monotonic() + PATIENCE_S
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        while _children() and (number == signal.SIGKILL or time.monotonic() < deadline):
            for pid in _children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            process.poll()
            _reap(process.pid)
            time.sleep(0.05)


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def _reap(command: int) -> None:
    """Orphans that have ended; the command's own end is left to its Popen."""
    for pid in _children():
        if pid != command:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
