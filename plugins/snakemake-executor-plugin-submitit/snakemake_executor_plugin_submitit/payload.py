"""What runs inside a Slurm job: Snakemake's command for one job, asked to leave in time and judged by its outputs.

Standard library only: the class is pickled by value, so that a job needs neither this package nor its imports, and
a job that waits in the queue keeps the code it was submitted with.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from . import memory

STOP_FILE_VARIABLE = "SNAKEMAKE_STOP_FILE"
END_MARGIN_S = 20  # of the time that is left: for ending what does not leave by itself, and for requeueing
SCONTROL_TIMEOUT_S = 30
LONGEST_ARGUMENT = 100_000  # Linux takes 128 KiB for one argument of a program
TIME_LIMIT, PREEMPTION = "its time limit", "a preemption"


class _LeaveError(Exception):
    """Raised by `checkpoint` in the middle of `__call__`, which then returns instead of being requeued."""


class JobPayload:
    """One Snakemake job's command.

    submitit calls it in the job; on SIGUSR2 (before the time limit, or at a preemption where the site says so) it
    calls `checkpoint`, which makes the stop file appear, waits for the command to leave, and requeues the job. At its
    time limit only a command is started again that goes on from what it saved: one that left when it was asked to, or
    whose rule says so (`resumable`). Every requeue is counted in `JOB.requeues`, a list of

        life         the number of restarts before it
        why          what it was for

    What came out is written to `JOB.outcome.json`:

        returncode   of the command, negative for a signal; null if it could not be started
        missing      outputs that are not there, or that the job has left as they were, although it ended with 0
        reason       why it ended, if not by itself; else null
        memory       what the kernel has counted (memory.py)
        node, seconds, restarts

    The process then ends with an exit code of 0 only if the outputs were made, so that Slurm's accounting tells the
    same.
    """

    def __init__(
        self, command: str, name: str, outputs: list[str], *, workdir: str, folder: str, signal_delay_s: int,
        requeue_limit: int, requeues: int = 0, resumable: bool = False, rename: bool = False,
        group_reads: bool = False,
    ):  # fmt: skip
        self.command, self.name, self.outputs = command, name, outputs
        self.workdir, self.folder = workdir, folder
        self.signal_delay_s, self.requeue_limit, self.requeues = signal_delay_s, requeue_limit, requeues
        self.resumable, self.rename, self.group_reads = resumable, rename, group_reads
        self._umask = -1  # of the command: as it is
        self._process: subprocess.Popen | None = None
        self._terminated = False
        self._left: str | None = None  # why `checkpoint` has given up; empty where the command ended well

    # Called by submitit, in the batch script's Python on the first node.

    def __call__(self) -> None:
        started = time.monotonic()
        if self.group_reads:
            self._umask = os.umask(0o077)  # for the files of this class and submitit; the command gets its own back
            with contextlib.suppress(OSError):
                os.fchmod(1, 0o640)  # the log, which slurmstepd has made by the user's umask
        self._say(f"{self.name}: job {self._job_id()} on {self._node()}, restarts: {self._restarts()}")
        try:
            self._stop_file().unlink(missing_ok=True)
            self._file("outcome.json").unlink(missing_ok=True)  # of a start that was requeued after its end
            self._write("started", f"{self._node()}\n{self._restarts()}\n")
        except OSError as error:
            self._end_without_outcome(error)
        before = {output: self._signature(output) for output in self.outputs}
        if self.rename:
            self._rename()
        # Slurm sends SIGTERM to every process of a job that it is about to end; submitit's handler only logs it.
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.signal(signal.SIGCONT, signal.SIG_DFL)  # submitit logs it, and logging swallows what `checkpoint` raises
        reason, memory_before = None, memory.read()
        try:
            self._start()
        except OSError as error:
            reason = f"could not be started on {self._node()}: {error.filename or 'bash'}: {error.strerror}"
        except _LeaveError:
            pass
        try:
            if self._process is not None and self._left is None:
                self._wait(None)
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # what has ended need not be asked to leave
        except _LeaveError:
            pass
        reason = reason or self._left or None
        returncode = self._process.wait() if self._process else None
        if self._terminated and returncode and not reason:
            reason = self._leave_to_slurm()
        missing = self._missing(before) if returncode == 0 else []
        seconds = time.monotonic() - started
        code = "not started" if returncode is None else f"exit code {returncode}"
        self._say(f"{self.name}: {code} after {seconds:.2f} s" + (f"; {reason}" if reason else ""))
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
        try:
            self._write("outcome.json", json.dumps(outcome))
        except OSError as error:
            self._end_without_outcome(error)
        if returncode or missing or reason:
            sys.exit(returncode if returncode and 0 < returncode < 128 else 1)

    def checkpoint(self) -> None:
        """Ask the command to leave, and have the job started again if that helps.

        Raises:
            SystemExit: it will be started again.
            _LeaveError: it will not; `__call__` goes on and writes down what came out.
        """
        # One request is enough: a second one in the middle of this would start it again.
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        left = self._seconds_left()
        # Slurm sends the signal up to a minute early. Where the time left is unknown, call it a preemption.
        at_limit = left is not None and left <= self.signal_delay_s + 90
        patience = left if at_limit else self.signal_delay_s
        self._say(f"{self.name}: asked to leave: " + (f"{left:.0f} s left" if at_limit else "preemption"))
        by_itself = self._end_process(max(patience - END_MARGIN_S, 1))
        if self._process is not None and self._process.poll() == 0:
            self._left = ""
        elif at_limit and not by_itself and not self.resumable:
            self._left = f"reached its time limit; {LONGER_OR_RESUMABLE}"
        else:
            self._left = self._requeue(TIME_LIMIT if at_limit else PREEMPTION)
        raise _LeaveError

    # Details.

    def _start(self) -> None:
        command = ["bash", "-c", self.command]
        if len(os.fsencode(self.command)) > LONGEST_ARGUMENT:
            script = self._file("command.sh")
            self._write("command.sh", f"{self.command}\n", 0o600)
            command = ["bash", str(script)]
        asked = []  # in the middle of Popen, `checkpoint` would not know of the process
        handler = signal.signal(signal.SIGUSR2, lambda *_: asked.append(True))
        try:
            self._process = subprocess.Popen(
                command,
                cwd=self.workdir,
                stdin=subprocess.DEVNULL,
                env={**os.environ, STOP_FILE_VARIABLE: str(self._stop_file())},
                start_new_session=True,
                umask=self._umask,
            )
        finally:
            signal.signal(signal.SIGUSR2, handler)
        if asked:
            signal.raise_signal(signal.SIGUSR2)

    def _wait(self, timeout: float | None) -> bool:
        """Wait for the command without reaping it, so that a signal handler may wait in the middle of a wait."""
        assert self._process is not None
        end = None if timeout is None else time.monotonic() + timeout
        options = os.WEXITED | os.WNOWAIT | (0 if end is None else os.WNOHANG)
        with contextlib.suppress(ChildProcessError):  # reaped in a signal handler
            while os.waitid(os.P_PID, self._process.pid, options) is None:
                if end is not None and time.monotonic() > end:
                    return False
                time.sleep(0.2)
        return True

    def _end_process(self, patience: float) -> bool:
        """Whether the command has left by itself, after it was asked to by the stop file."""
        if self._process is None:
            return False
        by_itself = False
        steps = [(None, patience), (signal.SIGTERM, 8), (signal.SIGKILL, 8)]
        try:
            self._stop_file().touch()
        except OSError as error:  # nothing else can ask it to save
            self._say(f"{self.name}: {error.filename}: {error.strerror}")
            steps[:2] = [(signal.SIGTERM, patience)]
        for number, seconds in steps:
            if number is not None:
                self._say(f"{self.name}: still running; sending {signal.Signals(number).name}")
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, number)
            if self._wait(seconds):
                by_itself = number is None and not self._terminated  # Slurm's SIGTERM is no leaving by itself
                break
        with contextlib.suppress(ProcessLookupError):  # what the command left behind
            os.killpg(self._process.pid, signal.SIGKILL)
        return by_itself

    def _on_sigterm(self, *_: object) -> None:
        self._terminated = True
        with contextlib.suppress(OSError):
            self._stop_file().touch()

    def _leave_to_slurm(self) -> str:
        """The command ended because Slurm ends this job: no outcome is written, since Slurm decides what follows.

        In the grace time of a preemption the job counts as running, and one that left by itself now would not be
        requeued; so it requeues itself. Returns why it can't be.
        """
        assert self._process is not None
        end = time.monotonic() + self.signal_delay_s
        with contextlib.suppress(ProcessLookupError):  # none of the command's processes is left
            while time.monotonic() < end:  # some may still be saving
                os.killpg(self._process.pid, 0)
                time.sleep(0.2)
            os.killpg(self._process.pid, signal.SIGKILL)
        self._say(f"{self.name}: ended by Slurm")
        if (self._scontrol("JobState") or self._squeue("%T")) == "RUNNING":
            return self._requeue(PREEMPTION)
        sys.exit(128 + signal.SIGTERM)

    def _scontrol(self, what: str) -> str:
        """One field of this job from slurmctld itself, since squeue may answer from a cache; empty where it doesn't."""
        text = self._answer("scontrol", "--oneliner", "show", "job", self._job_id())
        found = re.search(rf" {what}=(\S+)", text)
        return found[1] if found else ""

    def _squeue(self, what: str) -> str:
        """One field of this job in squeue's words; empty where Slurm does not answer."""
        return self._answer("squeue", "-h", "-j", self._job_id(), "-o", what)

    def _answer(self, *command: str) -> str:
        try:
            for _ in range(3):
                done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=15)
                if done.returncode >= 0:
                    return done.stdout.strip()
                # Slurm signals every process of a job that it ends, and so the question about it.
        except (subprocess.TimeoutExpired, OSError):
            pass
        return ""

    def _requeue(self, why: str) -> str:
        """Have Slurm start this job again; returns the reason if that can't be.

        Not by submitit, which pickles the job again: what fails on a full or missing folder would lose the pickle.

        Raises:
            SystemExit: Slurm has it in the queue again, and ends this process.
        """
        done = self._requeues()
        used = self.requeues + len(done)
        if used >= self.requeue_limit:
            times = f"{used} {'time' if used == 1 else 'times'}"
            again = f" after it was started again {times} ({self._counted(done)})" if used else ""
            return f"stopped by {why}{again}; requeue limit: {self.requeue_limit}"
        try:  # before the requeue: one that is not counted would have no end
            self._write("requeues", json.dumps([*done, {"life": self._restarts(), "why": why}]))
        except OSError as error:
            return f"could not be requeued after {why}: {error.filename}: {error.strerror}"
        self._say(f"{self.name}: requeue {used + 1} of {self.requeue_limit} after {why}")
        problem = ""
        for _ in range(END_MARGIN_S):  # the controller may be restarting
            try:
                command = ["scontrol", "requeue", self._job_id()]
                called = subprocess.run(command, capture_output=True, text=True, timeout=SCONTROL_TIMEOUT_S)
                problem = called.stderr.strip() or f"exit code {called.returncode}"
                if called.returncode == 0:
                    sys.exit(128 + signal.SIGTERM)
            except subprocess.TimeoutExpired:
                problem = f"no answer within {SCONTROL_TIMEOUT_S} s"
            except OSError as error:
                problem = str(error.strerror)
            time.sleep(1)
        with contextlib.suppress(OSError):
            self._write("requeues", json.dumps(done))
        return f"could not be requeued after {why}: scontrol: {problem}"

    def _requeues(self) -> list[dict]:
        path = self._file("requeues")
        return json.loads(path.read_text()) if path.exists() else []

    def _counted(self, done: list[dict]) -> str:
        """What the earlier requeues were for."""
        reasons = [one["why"] for one in done]
        parts = [f"{reasons.count(why)} after {why}" for why in dict.fromkeys(reasons)]
        if self.requeues:
            parts.insert(0, f"{self.requeues} by a new submission")
        return ", ".join(parts)

    def _seconds_left(self) -> float | None:
        """Until the time limit; None where Slurm does not say."""
        with contextlib.suppress(ValueError):
            return max(seconds_of(self._scontrol("TimeLimit")) - seconds_of(self._scontrol("RunTime")), 0.0)
        left = self._squeue("%L")
        if left == "INVALID":  # less than none: the signal came late
            return 0.0
        try:
            if not left and "SLURM_JOB_END_TIME" in os.environ:  # newer versions set it as the job begins
                return max(float(os.environ["SLURM_JOB_END_TIME"]) - time.time(), 0.0)
            return seconds_of(left)
        except ValueError:
            return None

    def _missing(self, before: dict[str, tuple]) -> list[str]:
        """Outputs that are not there, as Snakemake sees it, or that this life of the job has not touched.

        Compared with what was there before the command, not with a clock: file servers have their own ones. The
        Snakemake in the job touches every output at the end, also links, and moved files with old times.
        """
        return [
            output for output, signature in before.items()
            if not os.path.exists(os.path.join(self.workdir, output)) or self._signature(output) == signature
        ]  # fmt: skip

    def _signature(self, output: str) -> tuple:
        """Changes whenever a program makes, moves, links or touches this output."""
        found = []
        path = os.path.join(self.workdir, output)
        for one in (path, os.path.join(path, ".snakemake_timestamp")):  # Snakemake's time of a directory
            with contextlib.suppress(OSError):
                status = os.lstat(one)
                found.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
        return tuple(found)

    def _rename(self) -> None:
        """A running array task's own name in squeue, instead of the array's; best effort, nothing waits for it.

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

    def _write(self, kind: str, text: str, mode: int = 0o666) -> None:
        """Renamed into place, so that it is read whole or not at all."""
        path = self._file(kind)
        temporary = path.with_suffix(".tmp")
        temporary.touch(mode)
        temporary.write_bytes(os.fsencode(text))
        temporary.replace(path)

    def _end_without_outcome(self, error: OSError) -> None:
        self._say(f"{self.name}: on {self._node()}: {error.filename}: {error.strerror}")
        sys.exit(1)

    def _stop_file(self) -> Path:
        return self._file(f"stop.{self._restarts()}")  # one name per life: an old one stops nobody

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a full log file system must not end the job
            print(f"[{time.strftime('%Y-%m-%d %H:%M:%S')}] {text}", flush=True)


LONGER_OR_RESUMABLE = (
    "raise `runtime` (retries can: runtime=lambda wildcards, attempt: 60 * attempt), or give the rule "
    "resumable=True if its command goes on from what it has saved"
)


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
