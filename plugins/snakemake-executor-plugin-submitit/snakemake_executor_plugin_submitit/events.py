"""What plugins for `--logger` learn of a Slurm job beyond Snakemake's own events: when it stops waiting and runs."""

from __future__ import annotations

import contextlib

from snakemake.settings.enums import Quietness
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_logger_plugins.common import LogEvent

from . import identity
from .task import Task


def note_start(one: Task) -> None:
    """Look whether it runs. Looked at before the ends of others are: none begins before the end that made room."""
    if one.node is None:
        with contextlib.suppress(OSError):
            one.node = one.started.read_text().partition("\n")[0]


def tell_of_start(info: SubmittedJobInfo, logger) -> None:
    """Once per Slurm job that runs, with Snakemake's event for it.

    The event of the same name that Snakemake itself sends is of the moment at which it chooses a job to be submitted.
    """
    one = info.aux["task"]
    if one.node is None or one.told:
        return
    one.told = True
    event = {
        "event": LogEvent.JOB_STARTED,
        "jobs": [job.jobid for job in identity.single_jobs(info.job)],
        "quietness": Quietness.PROGRESS,
    }
    logger.info(f"Slurm job {one.job_id} runs on {one.node}: {one.label}", extra=event)
