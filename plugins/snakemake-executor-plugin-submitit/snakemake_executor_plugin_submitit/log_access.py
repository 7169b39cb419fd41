"""Who may read the files of the log folder: its owner, or also the group, but then the logs alone.

A colleague can help with a failed job only if he can read its log. Pickles run as code, and outcome files decide what
counts as done, so no other user may ever write here, whatever the umask is.
"""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from . import slurm

_KEPT = stat.S_ISGID  # by which a folder passes its group on


def open_to(folder: Path, access: str) -> None:
    """Give the group access to a folder of this user, or no other user.

    Raises:
        OSError: its mode can't be changed.
    """
    mode = stat.S_IMODE(folder.stat().st_mode)
    wanted = (0o750 if access == "group" else 0o700) | (mode & _KEPT)
    if mode != wanted:
        folder.chmod(wanted)


def close_to_writers(folder: Path) -> None:
    """Before the group is let in: what a generous umask has left in the folder is for its owner to write.

    Raises:
        OSError: a mode can't be changed.
    """
    for path in folder.iterdir():
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode):
            if found.st_mode & 0o022:
                path.chmod(stat.S_IMODE(found.st_mode) & ~0o022)
        elif stat.S_ISREG(found.st_mode) and found.st_mode & 0o077:
            path.chmod(0o600)


def open_submission(folder: Path, access: str) -> None:
    """Let the group into the folder of one submission and of its rule, once all in it is for its owner only.

    Raises:
        OSError: a mode can't be changed.
    """
    if access != "group":
        return
    for path in folder.iterdir():
        if not path.name.endswith(".out"):  # a job that runs already has a log
            path.chmod(0o600)
    for one in (folder.parent, folder):
        open_to(one, access)


def another_users_jobs(folder: Path, workdir: Path) -> str | None:
    """Why not to begin with the log folder `folder`, if another user's jobs of this working folder are in the queue."""
    usual = workdir / ".snakemake" / "submitit"
    if folder == usual or not usual.exists():
        return None
    uid = usual.stat().st_uid
    running = uid != os.geteuid() and _jobs_here(_name(uid), workdir)
    return f"submitit-logdir: {usual}: {another_user(uid, workdir)}" if running else None


def another_user(uid: int, workdir: Path) -> str:
    """An error text for a user who finds the log folder of another user, whose jobs may be running."""
    name = _name(uid)
    theirs = _jobs_here(name, workdir)
    if theirs is None:
        now = "whose jobs for this working folder may be queued or running"
    elif theirs:
        some = ", ".join([*theirs[:5], *(["..."] if theirs[5:] else [])])
        now = f"whose jobs for this working folder are in the queue ({some})"
    else:
        now = "whose jobs for this working folder are not in the queue now, as far as squeue shows"
    return (
        f"belongs to {name}, {now}. A second start here, with another submitit-logdir too, would run such jobs twice: "
        f"let {name} go on, or work in a copy of the workflow; if {name} has stopped it for good (see squeue "
        f"--user {name}), take another submitit-logdir"
    )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _jobs_here(user: str, workdir: Path) -> list[str] | None:
    """The user's jobs that work in `workdir`; None where Slurm does not say."""
    try:
        text = slurm.call("squeue", "--noheader", f"--user={user}", "--format=%i|%Z")
    except slurm.SlurmError:
        return None
    rows = [line.partition("|") for line in text.splitlines()]
    return [job_id.strip() for job_id, bar, where in rows if bar and Path(where.strip()) == workdir]
