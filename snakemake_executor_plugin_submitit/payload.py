"""What runs inside a Slurm job: Snakemake's command for one job, asked to leave in time and judged by its outputs.

Standard library only: the class is pickled by value, so that a job needs neither this package nor its imports, and
a job that waits in the queue keeps the code it was submitted with.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from . import memory

STOP_FILE_VARIABLE = "SNAKEMAKE_STOP_FILE"
END_MARGIN_S = 20  # of the time that is left: for ending what does not leave by itself, and for requeueing
CLOCK_MARGIN_S = 2.0  # the log folder and the outputs may lie on file servers with slightly different clocks


class _LeaveError(Exception):
    """Raised by `checkpoint` in the middle of `__call__`, which then returns instead of being requeued."""


class Payload:
    """One Snakemake job's command.

    submitit calls it in the job; on SIGUSR2 (before the time limit, or at a preemption where the site says so) it
    calls `checkpoint`, which makes the stop file appear, waits for the command to leave, and lets submitit requeue
    the job. What came out is written to `JOB.outcome.json`:

        returncode   of the command, negative for a signal
        missing      outputs that are not there, or are older than the job, although the command ended with 0
        reason       why it ended, if not by itself; else null
        memory       what the kernel has counted (memory.py)
        node, seconds, restarts

    The process then ends with an exit code of 0 only if the outputs were made, so that Slurm's accounting tells the
    same.
    """

    def __init__(
        self, command: str, name: str, outputs: list[str], *, workdir: str, folder: str, signal_delay_s: int,
        requeue_limit: int, requeues: int = 0, rename: bool = False,
    ):  # fmt: skip
        self.command, self.name, self.outputs = command, name, outputs
        self.workdir, self.folder = workdir, folder
        self.signal_delay_s, self.requeue_limit, self.requeues = signal_delay_s, requeue_limit, requeues
        self.rename = rename
        self._process: subprocess.Popen | None = None
        self._terminated = False

    # Called by submitit, in the batch script's Python on the first node.

    def __call__(self) -> None:
        started = time.monotonic()
        self._stop_file().unlink(missing_ok=True)
        self._file("outcome.json").unlink(missing_ok=True)  # of a life that somebody has requeued after its end
        marker = self._file("started")
        marker.write_text(f"{self._node()}\n")
        begun = marker.stat().st_ctime
        self._say(f"{self.name}: job {self._job_id()} on {self._node()}, restarts: {self._restarts()}")
        if self.rename:
            self._rename()
        # Slurm sends SIGTERM to every process of a job that it is about to end; submitit's handler only logs it.
        signal.signal(signal.SIGTERM, self._on_sigterm)
        reason, memory_before = None, memory.read()
        try:
            self._process = subprocess.Popen(
                ["bash", "-c", self.command],
                cwd=self.workdir,
                stdin=subprocess.DEVNULL,
                env={**os.environ, STOP_FILE_VARIABLE: str(self._stop_file())},
                start_new_session=True,
            )
            self._wait(None)
        except _LeaveError as leave:
            reason = str(leave) or None
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
            # submitit's one try to requeue has failed: the controller may be restarting.
            reason = self._requeue_again(error)
        returncode = self._process.wait() if self._process else 1
        if self._terminated and returncode:
            self._leave_to_slurm()
        missing = self._missing(begun) if returncode == 0 else []
        seconds = time.monotonic() - started
        self._say(f"{self.name}: exit code {returncode} after {seconds:.2f} s" + (f"; {reason}" if reason else ""))
        for path in missing:
            self._say(f"{self.name}: ended with exit code 0 but did not make {path}")
        outcome = {
            "returncode": returncode,
            "missing": missing,
            "reason": reason,
            "node": self._node(),
            "seconds": round(seconds, 1),
            "restarts": self._restarts(),
            "memory": memory.since(memory_before, memory.read()),
        }
        self._write("outcome.json", json.dumps(outcome))
        if returncode or missing or reason:
            sys.exit(returncode if 0 < returncode < 128 else 1)

    def checkpoint(self):
        """Ask the command to leave; return what submitit shall pickle for the next life of this job."""
        from submitit.core.utils import DelayedSubmission

        left = self._seconds_left()
        # Slurm sends the signal up to a minute early. Where the time left is unknown, call it a preemption.
        at_limit = left is not None and left <= self.signal_delay_s + 90
        patience = left if at_limit else self.signal_delay_s
        self._say(f"{self.name}: asked to leave: " + (f"{left:.0f} s left" if at_limit else "preemption"))
        self._end_process(max(patience - END_MARGIN_S, 1))
        if self._process is not None and self._process.poll() == 0:
            raise _LeaveError("")
        used = self._requeues_used()
        if at_limit:
            if used >= self.requeue_limit:
                raise _LeaveError(f"reached its time limit {used + 1} times (requeue limit: {self.requeue_limit})")
            self._write("requeues", str(used + 1))
            self._say(f"{self.name}: time limit; requeue {used + 1} of {self.requeue_limit}")
        later = copy.copy(self)
        later._process = None  # processes can't be pickled
        later._terminated = False  # what ends this life is not to be seen in the next one
        return DelayedSubmission(later)

    # Details.

    def _wait(self, timeout: float | None) -> bool:
        """Wait for the command without reaping it, so that a signal handler may wait in the middle of a wait."""
        assert self._process is not None
        end = None if timeout is None else time.monotonic() + timeout
        options = os.WEXITED | os.WNOWAIT | (0 if end is None else os.WNOHANG)
        while os.waitid(os.P_PID, self._process.pid, options) is None:
            if end is not None and time.monotonic() > end:
                return False
            time.sleep(0.2)
        return True

    def _end_process(self, patience: float) -> None:
        if self._process is None:
            return
        self._stop_file().touch()
        for number, seconds in ((None, patience), (signal.SIGTERM, 8), (signal.SIGKILL, 8)):
            if number is not None:
                self._say(f"{self.name}: still running; sending {signal.Signals(number).name}")
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, number)
            if self._wait(seconds):
                break
        with contextlib.suppress(ProcessLookupError):  # what the command left behind
            os.killpg(self._process.pid, signal.SIGKILL)

    def _on_sigterm(self, *_: object) -> None:
        self._terminated = True
        with contextlib.suppress(OSError):
            self._stop_file().touch()

    def _leave_to_slurm(self) -> None:
        """The command ended because Slurm ends this job: no outcome is written, since Slurm decides what follows.

        In the grace time of a preemption the job counts as running, and one that left by itself now would not be
        requeued; so it requeues itself.
        """
        assert self._process is not None
        end = time.monotonic() + self.signal_delay_s
        with contextlib.suppress(ProcessLookupError):  # none of the command's processes is left
            while time.monotonic() < end:  # some may still be saving
                os.killpg(self._process.pid, 0)
                time.sleep(0.2)
            os.killpg(self._process.pid, signal.SIGKILL)
        self._say(f"{self.name}: ended by Slurm")
        if self._squeue("%T") == "RUNNING":
            self._requeue_again(RuntimeError("in its grace time"))
        sys.exit(128 + signal.SIGTERM)

    def _squeue(self, what: str) -> str:
        """One field of this job in squeue's words; empty where Slurm does not answer."""
        command = ["squeue", "-h", "-j", self._job_id(), "-o", what]
        try:
            for _ in range(3):
                done = subprocess.run(command, capture_output=True, text=True, timeout=15)
                if done.returncode >= 0:
                    return done.stdout.strip()
                # Slurm signals every process of a job that it ends, and so the question about it.
        except (subprocess.TimeoutExpired, OSError):
            pass
        return ""

    def _requeue_again(self, error: Exception) -> str:
        """Requeue with more patience; on success Slurm ends this process."""
        for _ in range(END_MARGIN_S):
            time.sleep(1)
            done = subprocess.run(["scontrol", "requeue", self._job_id()], capture_output=True, text=True)
            if done.returncode == 0:
                time.sleep(60)
        return f"could not be requeued: {error}"

    def _seconds_left(self) -> float | None:
        """Until the time limit; None where Slurm does not say."""
        left = self._squeue("%L")
        if left == "INVALID":  # less than none: the signal came late
            return 0.0
        try:
            return seconds_of(left)
        except ValueError:
            return None

    def _missing(self, begun: float) -> list[str]:
        """Outputs that this life of the job did not make. By ctime, which no program can set back."""
        missing = []
        for output in self.outputs:
            try:
                if os.stat(os.path.join(self.workdir, output)).st_ctime < begun - CLOCK_MARGIN_S:
                    missing.append(output)
            except OSError:
                missing.append(output)
        return missing

    def _requeues_used(self) -> int:
        path = self._file("requeues")
        return int(path.read_text()) if path.exists() else self.requeues

    def _rename(self) -> None:
        """A running array task's own name in squeue, instead of the array's; best effort, nobody waits for it.

        By array and task number: SLURM_JOB_ID of the last task is the array's id, and would name all tasks.
        """
        with contextlib.suppress(OSError):
            subprocess.Popen(
                ["scontrol", "update", f"JobId={self._job_id()}", f"JobName={self.name}"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip

    def _job_id(self) -> str:
        array = os.environ.get("SLURM_ARRAY_JOB_ID")
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]

    def _node(self) -> str:
        return os.environ.get("SLURMD_NODENAME") or os.uname().nodename

    def _restarts(self) -> int:
        return int(os.environ.get("SLURM_RESTART_COUNT", 0))

    def _file(self, kind: str) -> Path:
        return Path(self.folder) / f"{self._job_id()}.{kind}"

    def _write(self, kind: str, text: str) -> None:
        """Renamed into place, so that it is read whole or not at all."""
        path = self._file(kind)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(text)
        temporary.replace(path)

    def _stop_file(self) -> Path:
        return self._file(f"stop.{self._restarts()}")  # one name per life: an old one stops nobody

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a full log file system must not end the job
            print(f"[{time.strftime('%Y-%m-%d %H:%M:%S')}] {text}", flush=True)


def seconds_of(text: str) -> float:
    """Seconds of Slurm's [days-][[hours:]minutes:]seconds.

    Raises:
        ValueError: UNLIMITED, INVALID, or another text without a length.
    """
    days, _, clock = text.rpartition("-")
    seconds = 0.0
    for part in clock.split(":"):
        seconds = 60 * seconds + int(part)
    return seconds + 86400 * int(days or 0)
