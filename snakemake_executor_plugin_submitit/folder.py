"""The folder of logs, pickles and ledger."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from snakemake_interface_common.exceptions import WorkflowError


def private_folder(folder: Path) -> Path:
    """`folder`, made if it is not there, readable and writable by its owner alone: job pickles run as code.

    Raises:
        WorkflowError: it is not ours, or can't be made.
    """
    if "%" in str(folder):
        raise WorkflowError(f"submitit-logdir: {folder}: Slurm would replace the % in it; choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.stat()
        if found.st_uid != os.geteuid():
            raise WorkflowError(f"submitit-logdir: {folder}: belongs to another user; choose a folder of your own")
        if stat.S_IMODE(found.st_mode) & 0o077:
            folder.chmod(0o700)
    except OSError as error:
        raise WorkflowError(f"submitit-logdir: {error.filename}: {error.strerror}") from None
    return folder
