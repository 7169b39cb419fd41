"""Jobs that the preflight itself submits: sbatch, squeue and scancel, none of which is waited for without end."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from promptecho.doctor.cluster import JobNeeds
from promptecho.doctor.profile import WorkflowProfile
from promptecho.signal_handlers import handling

PATIENCE_S = 60  # for an answer of Slurm
# What of a profile's resources sbatch is told in other words.
OPTIONS = {"slurm_account": "account", "qos": "qos", "constraint": "constraint", "reservation": "reservation"}


@dataclass(frozen=True)
class BatchJob:
    """What is asked for; `rule` is the one whose resources in the profile say where it goes."""

    name: str
    rule: str
    needs: JobNeeds
    minutes: int


def submit(profile: WorkflowProfile, job: BatchJob, script: Path, log: Path) -> tuple[str, str]:
    """(job id, "") of a script that was submitted, or ("", why it was refused)."""
    resources, needs = profile.resources(job.rule), job.needs
    options = [f"--{option}={resources[key]}" for key, option in OPTIONS.items() if resources.get(key)]
    options += [f"--partition={needs.partition}"] if needs.partition else []
    options += [f"--gres=gpu:{needs.gpus}"] if needs.gpus else []
    command = [
        "sbatch", "--parsable", f"--job-name={job.name}", f"--nodes={needs.nodes}", "--ntasks-per-node=1",
        f"--cpus-per-task={needs.cpus}", f"--mem={needs.mem_mb}", f"--time={job.minutes}", "--no-requeue",
        f"--output={log.absolute()}", *options, str(script),
    ]  # fmt: skip
    done = _asked(command)
    if done is None:
        return "", f"no answer within {PATIENCE_S} s; squeue tells whether {job.name} is queued nevertheless"
    if done.returncode:
        return "", (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return done.stdout.strip().partition(";")[0], ""


def cancel(job_ids: Sequence[str]) -> None:
    """Cancel jobs, whether they still are there or not."""
    _asked(["scancel", *job_ids])


def state_of(job_id: str) -> tuple[str, str] | None:
    """(state, reason) in the queue; None where the job is not there any more."""
    done = _asked(["squeue", "-h", "-j", job_id, "-o", "%T|%r"])
    if done is None:
        return "unknown", "squeue does not answer"
    line = (done.stdout.strip().splitlines() or [""])[0]
    if done.returncode and "invalid job id" not in done.stderr.lower():
        return "unknown", done.stderr.strip()  # slurmctld does not answer now
    state, _, reason = line.partition("|")
    return (state, reason) if state else None


def _asked(command: Sequence[str]) -> subprocess.CompletedProcess[str] | None:
    """What a command of Slurm said; None where it does not answer."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE_S)
    return None


@contextlib.contextmanager
def leaving_cleanly() -> Iterator[None]:
    """SIGTERM and the end of the terminal (SIGHUP) leave as Ctrl-C does: after the jobs were cancelled."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    numbers: list[int] = []
    if threading.current_thread() is threading.main_thread():
        numbers = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) == signal.SIG_DFL]
    with handling(numbers, leave):
        yield
