"""Jobs' own processes, found on this machine, which all nodes of the test cluster share; and a way to let them stand
still, so that what a test does to a job meets it at work, however fast or slow the machine is."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path


def commands(name: str, *, job: str | None = None, folder: Path | None = None) -> dict[int, dict[str, str]]:
    """Environments of the processes `promptecho NAME` by process id: those of a Slurm job, or those of a folder."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            lines = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
            where = os.readlink(entry / "cwd")
        except OSError:
            continue
        environment = dict(line.split("=", 1) for line in lines if "=" in line)
        if words[1:4] != ["-m", "promptecho", name]:
            continue
        if (job and environment.get("SLURM_JOB_ID") != job) or (folder and where != str(folder.resolve())):
            continue
        found[int(entry.name)] = environment
    return found


def training_ranks(*, job: str | None = None, folder: Path | None = None) -> dict[int, int]:
    """Process ids of `promptecho train` by rank."""
    found = commands("train", job=job, folder=folder).items()
    return {int(environment["SLURM_PROCID"]): pid for pid, environment in found if "SLURM_PROCID" in environment}


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """A signal to processes, some of which may be gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def stands_still(pid: int) -> bool:
    """Whether a process is stopped; False once it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "Tt"
    except OSError:
        return False
