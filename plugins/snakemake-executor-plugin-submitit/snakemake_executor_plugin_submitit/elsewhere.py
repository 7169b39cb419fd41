"""This user's jobs of this working folder that are in the queue by another log folder, which has a ledger of its own.

As when a first start was without a profile that sets `submitit-logdir`: to the second ledger they are unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from snakemake_interface_common.exceptions import WorkflowError

from . import identity, slurm
from .ledger import Ledger
from .queue import SCRIPT


@dataclass(frozen=True)
class Elsewhere:
    """Log folder and Slurm id of such jobs, by the key of their outputs."""

    jobs: Mapping[str, tuple[Path, str]]

    @classmethod
    def read(cls, folder: Path, workdir: Path) -> Elsewhere:
        """Nothing if squeue does not know: this is a help to the user, not a promise."""
        try:
            text = slurm.call("squeue", "--me", "--noheader", "--array", "--format=%i|%Z|%o")
        except slurm.SlurmError:
            return cls({})
        return cls({key: one for logdir, queued in _log_folders(text, folder, workdir).items()
                    for key, one in _open_jobs(logdir, queued).items()})  # fmt: skip

    def refuse(self, jobs: Sequence) -> None:
        """
        Raises:
            WorkflowError: some of `jobs` are made by such jobs.
        """
        found = [(job, *self.jobs[min(keys)]) for job in jobs if (keys := identity.keys_of(job) & self.jobs.keys())]
        if found:
            some = identity.some([f"{identity.label_of(job)} (Slurm job {job_id})" for job, _, job_id in found])
            raise WorkflowError(
                f"{some}: in the queue already, submitted with submitit-logdir {found[0][1]}: start with it to "
                "take them up, or wait for their end, or cancel them (scancel); nothing was submitted"
            )


def _log_folders(text: str, folder: Path, workdir: Path) -> dict[Path, dict[str, list[str]]]:
    """Ids of jobs by log folder and folder of their submission, of those that work in `workdir`, without `folder`."""
    found: dict[Path, dict[str, list[str]]] = {}
    for line in text.splitlines():
        job_id, _, rest = line.partition("|")
        where, _, script = rest.rpartition("|")
        path = Path(script)
        if path.name == SCRIPT and len(path.parts) > 3 and Path(where) == workdir:
            logdir = path.parents[2]
            if logdir != folder and logdir.resolve() != folder.resolve():
                found.setdefault(logdir, {}).setdefault(str(path.parent), []).append(job_id)
    return found


def _open_jobs(logdir: Path, queued: Mapping[str, list[str]]) -> dict[str, tuple[Path, str]]:
    """By key; `queued` are Slurm's ids by folder. A kill may have left the ledger without them."""
    try:
        ledger = Ledger(logdir / "ledger.jsonl", gone=lambda _: False)
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # another program's
    found = {}
    for submission, index in ledger.open_tasks():
        ids = queued.get(submission.folder, [])
        job_id = submission.job_id(index)
        if ids and (job_id is None or job_id in ids):
            found.update(dict.fromkeys(submission.entries[index].keys, (logdir, job_id or ids[0])))
    return found
