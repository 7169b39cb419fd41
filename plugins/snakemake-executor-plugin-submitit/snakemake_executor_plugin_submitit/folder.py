"""The folder of logs, pickles and ledger; and the folders of outputs, while jobs are making them."""

from __future__ import annotations

import os
from pathlib import Path

from snakemake_interface_common.exceptions import WorkflowError

from .log_access import another_user, another_users_jobs, close_to_writers, open_to

# Slurm replaces % in names of logs, drops a backslash, and reads options in a script line by line.
_REFUSED = '%\\"\n'


def private_folder(folder: Path, workdir: Path, access: str = "owner") -> Path:
    """`folder`, made if it is not there, writable by its owner alone: job pickles run as code.

    `access`: "owner" or "group", who may enter it to read logs; all else in it is for its owner only (log_access.py).

    Raises:
        WorkflowError: it is not ours, belongs to the workflow of another working folder, or can't be made.
    """
    for path, key in ((folder, "submitit-logdir"), (workdir, "working folder")):
        if bad := sorted(set(str(path)) & set(_REFUSED)):
            raise WorkflowError(f"{key}: {path}: Slurm can't take {bad[0]!r} in a path; choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.stat()
        if found.st_uid != os.geteuid():
            raise WorkflowError(f"submitit-logdir: {folder}: {another_user(found.st_uid, workdir)}")
        if reason := another_users_jobs(folder, workdir):
            raise WorkflowError(reason)
        open_to(folder, "owner")
        _claim(folder.resolve(), workdir.resolve())
        if access == "group":
            close_to_writers(folder)
            open_to(folder, access)
    except PermissionError as error:
        whose = _owner_above(folder)
        more = f": {another_user(whose, workdir)}" if whose not in (None, os.geteuid()) else ""
        raise WorkflowError(f"submitit-logdir: {error.filename}: {error.strerror}{more}") from None
    except OSError as error:
        raise WorkflowError(f"submitit-logdir: {error.filename}: {error.strerror}") from None
    return folder


def _owner_above(folder: Path) -> int | None:
    """Owner of the nearest folder that is there."""
    for path in (folder, *folder.parents):
        try:
            return path.stat().st_uid
        except OSError:
            continue
    return None


def _claim(folder: Path, workdir: Path) -> None:
    """One ledger for two working folders would mix their jobs, whose outputs have the same relative names."""
    if folder.is_relative_to(workdir):
        return  # and stays right when both are moved
    note = folder / "workdir"
    try:
        with note.open("x") as file:
            file.write(f"{workdir}\n")
    except FileExistsError:
        owner = note.read_text().rstrip("\n")
        if owner == str(workdir):
            return
        if owner and Path(owner).is_dir():
            raise WorkflowError(
                f"submitit-logdir: {folder}: belongs to the workflow in {owner}; choose another folder, or delete "
                f"{note} if nothing runs there any more"
            ) from None
        note.write_text(f"{workdir}\n")


def keep_folders_of_jobs(dag, ledger) -> None:
    """Let Snakemake not remove folders under the jobs that go on without it, or with another Snakemake.

    At its end it removes the empty folders of outputs that are not there yet; a job that runs would then fail at its
    own end. So that is left out as long as a job of the ledger may be running, whoever has submitted it. (A job that
    begins later makes its folders itself.)
    """
    clean = dag.cleanup_workdir

    def cleanup_workdir() -> None:
        try:
            ledger.refresh()
        except (OSError, ValueError):
            return
        if all(index in submission.cancelled for submission, index in ledger.open_tasks()):
            clean()

    dag.cleanup_workdir = cleanup_workdir
