"""Start one command as several ranks on this machine: what torchrun does for one node, with its variables.

    python -m promptecho.cluster.ranks COUNT CPUS_PER_RANK COMMAND...

Unlike torchrun, which ends with 1 whatever the ranks' exit codes are, and kills them 30 seconds after it was asked to
end, this keeps training's own way to leave: SIGTERM and Ctrl-C are passed on as SIGTERM, after which the ranks save at
their next step boundary, however long that takes, and exit code 75 comes through. A rank that fails ends the others,
and no rank outlives this process, even after `kill -9`.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import time

SAVED = 75  # a rank that was asked to stop has saved its state; promptecho.train.stop
PATIENCE_S = 30.0  # for the other ranks, after one has failed or been killed
PORTS = range(20000, 30000)  # below Linux's ephemeral ports, where a client may hold any
PR_SET_PDEATHSIG = 1


class Ranks:
    """Processes of one job: if one fails, all are ended."""

    def __init__(self, count: int, cpus: int, command: list[str]):
        shared = {
            "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": str(cpus),
        }  # fmt: skip
        # A session of their own: a terminal's Ctrl-C reaches this process alone. Open files are theirs too, so that
        # a lease of GPUs lasts until the last of them is gone.
        self.processes = [
            subprocess.Popen(
                command,
                env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                close_fds=False,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )  # fmt: skip
            for rank in range(count)
        ]
        self.impatient = False

    def on_signal(self, number: int, _: object) -> None:
        """Pass a request to stop on to the ranks; a Ctrl-C after that kills them."""
        self.send(signal.SIGKILL if self.impatient and number == signal.SIGINT else signal.SIGTERM)
        self.impatient = True

    def send(self, number: int) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)

    def wait(self) -> int:
        """Until all have ended; the first exit code that is not 0, or 128 + its signal, as a shell says it."""
        first, deadline = 0, None
        while True:
            codes = [process.poll() for process in self.processes]
            if not first:
                # A rank that was killed or has crashed says more than those that left because of it.
                failed = sorted((code for code in codes if code), key=lambda code: (code == SAVED, code > 0))
                first = failed[0] if failed else 0
                if first and first != SAVED:
                    text = f"promptecho: rank {codes.index(first)} of {len(codes)} {_told(first)}"
                    others = f"; this ends the other {codes.count(None)}" if None in codes else ""
                    print(text + others, file=sys.stderr, flush=True)
                    self.send(signal.SIGTERM)
                    deadline = time.monotonic() + PATIENCE_S
            if None not in codes:
                return 128 - first if first < 0 else first
            if deadline is not None and time.monotonic() > deadline:
                self.send(signal.SIGKILL)
            time.sleep(0.1)


def _told(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port() -> int:
    """A port that is free now, on which rank 0 will listen."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def main(arguments: list[str]) -> int:
    if len(arguments) < 3 or not (arguments[0].isdecimal() and arguments[1].isdecimal() and int(arguments[0])):
        print("usage: python -m promptecho.cluster.ranks COUNT CPUS_PER_RANK COMMAND...", file=sys.stderr)
        return 2
    try:
        ranks = Ranks(int(arguments[0]), int(arguments[1]), arguments[2:])
    except OSError as error:
        print(f"promptecho: {arguments[2]}: can't be started ({error.strerror})", file=sys.stderr)
        return 127
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, ranks.on_signal)
    return ranks.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
