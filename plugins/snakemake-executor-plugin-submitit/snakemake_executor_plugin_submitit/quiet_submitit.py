"""submitit's parts, imported without the logging that it would set up for the whole process.

`logging.config.dictConfig`, which `import submitit` calls, closes every handler that the process has: `--logger`
plugins would write nothing from then on. The variable that prevents it is taken back at once, because the jobs get
this environment, and their logs should have submitit's lines.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_VARIABLE = "SUBMITIT_LOG_LEVEL"


@contextlib.contextmanager
def _without_logging() -> Iterator[None]:
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = "NOCONFIG"
    try:
        yield
    finally:
        del os.environ[_VARIABLE]
        if before is not None:
            os.environ[_VARIABLE] = before


with _without_logging():
    from submitit.core.utils import DelayedSubmission, FailedSubmissionError, JobPaths
    from submitit.slurm.slurm import SlurmExecutor

__all__ = ["DelayedSubmission", "FailedSubmissionError", "JobPaths", "SlurmExecutor"]
