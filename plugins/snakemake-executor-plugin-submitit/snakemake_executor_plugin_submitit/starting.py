"""The command that starts Snakemake in a job: by a copy of job_start.py in the log folder."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path
from shlex import quote

from snakemake_interface_common.exceptions import WorkflowError


def quickly(command: str, python: str, folder: Path) -> str:
    """`command`, with the copy in place of `-m snakemake`; as it is where it starts Snakemake in another way."""
    before, found, after = command.partition(f"{python} -m snakemake --snakefile")
    return f"{before}{python} {quote(str(_copy(folder)))} --snakefile{after}" if found else command


@cache
def _copy(folder: Path) -> Path:
    """Never deleted: jobs that wait in the queue start with the file that they were submitted with.

    Raises:
        WorkflowError: it can't be written.
    """
    content = Path(__file__).with_name("job_start.py").read_bytes()
    path = folder / f"job_start-{hashlib.sha256(content).hexdigest()[:12]}.py"
    try:
        if not path.exists() or path.read_bytes() != content:
            temporary = path.with_suffix(f".{os.getpid()}.tmp")
            temporary.touch(0o600)
            temporary.write_bytes(content)
            temporary.replace(path)
    except OSError as error:
        raise WorkflowError(f"{error.filename or path}: {error.strerror}; nothing was submitted") from None
    return path
