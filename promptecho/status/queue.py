"""What Slurm says: one squeue for all jobs, and one sacct at most for a thousand.

No Slurm, and no answer, are told, not refused.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

TIMEOUT_S = 20
AT_ONCE = 1000  # ids of jobs in one word of a command, which Linux takes up to 128 KiB of
_FIELDS = "%i|%T|%r|%S|%M|%l|%N|%j|%o"
_UNSET = ("", "N/A", "n/a", "(null)", "None", "Unknown")


@dataclass(frozen=True)
class QueuedJob:
    """A job (or a task of an array) that Slurm has in its queue. Times in seconds; None: not known, or no limit."""

    job_id: str
    state: str
    reason: str
    start: float | None  # since the epoch: when it began, or is expected to
    elapsed: float | None
    limit: float | None
    node: str
    name: str
    script: str

    @property
    def pending(self) -> bool:
        return self.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "SUSPENDED", "STOPPED")


def ask_queue(user: str) -> tuple[list[QueuedJob], str | None]:
    """All jobs of a user, and why Slurm could not be asked, if so."""
    if shutil.which("squeue") is None:
        return [], "squeue: not found here, so Slurm was not asked"
    text, problem = _call("squeue", "--noheader", "--array", f"--user={user}", f"--format={_FIELDS}")
    rows = [line.split("|", 8) for line in text.splitlines() if line.count("|") >= 8]
    return [
        QueuedJob(row[0], row[1], "" if row[2] in _UNSET else row[2], _time(row[3]), seconds(row[4]), seconds(row[5]),
                  "" if row[6] in _UNSET else row[6], row[7], row[8])
        for row in rows
    ], problem  # fmt: skip


def ask_accounting(job_ids: Collection[str], fields: str, *, steps: bool = False) -> tuple[list[list[str]], str | None]:
    """Rows of sacct for some jobs, and why it could not be asked, if so."""
    if not job_ids:
        return [], None
    if shutil.which("sacct") is None:
        return [], "sacct: not found here"
    options = ["--noheader", "--parsable2", f"--format={fields}", *([] if steps else ["--allocations"])]
    asked, rows = sorted(job_ids), []
    for start in range(0, len(asked), AT_ONCE):
        text, problem = _call("sacct", *options, f"--jobs={','.join(asked[start : start + AT_ONCE])}")
        if problem:
            return [], problem
        rows += [line.split("|") for line in text.splitlines() if line.strip()]
    return rows, None


def _call(*command: str) -> tuple[str, str | None]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return "", f"{command[0]}: no answer within {TIMEOUT_S} s"
    except OSError as error:
        return "", f"{command[0]}: {error.strerror}"
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        return "", f"{command[0]}: {said.removeprefix(f'{command[0]}: ').removeprefix('error: ')[:200]}"
    return done.stdout, None


def seconds(text: str) -> float | None:
    """Of Slurm's [days-][[hours:]minutes:]seconds[.fraction]; None for words such as UNLIMITED."""
    days, _, clock = text.rpartition("-")
    with contextlib.suppress(ValueError):
        total = 0.0
        for part in clock.split(":"):
            total = 60 * total + float(part)
        return total + 86400 * int(days or 0)
    return None


def _time(text: str) -> float | None:
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(text).timestamp()
    return None
