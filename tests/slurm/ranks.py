"""The processes of a training step, found on this machine, which all nodes of the test cluster share."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path


def training_ranks(*, job: str | None = None, folder: Path | None = None) -> dict[int, int]:
    """Process ids of `promptecho train` by rank: those of a Slurm job, or those that run in a folder."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            lines = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
            where = os.readlink(entry / "cwd")
        except OSError:
            continue
        if words[1:4] != ["-m", "promptecho", "train"]:
            continue
        if (job and f"SLURM_JOB_ID={job}" not in lines) or (folder and where != str(folder.resolve())):
            continue
        found.update({int(line[13:]): int(entry.name) for line in lines if line.startswith("SLURM_PROCID=")})
    return found


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """A signal to processes, some of which may be gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
