"""What Snakemake's output says about a job that has failed."""

from __future__ import annotations

import sys

from . import identity, task
from .rerun import rerun_command
from .task import Task, Verdict


def failure_message(job, one: Task, verdict: Verdict, dag_settings) -> str:
    """The reason, the end of the Slurm log, and the command that runs this job alone again."""
    command = rerun_command(sys.argv, dag_settings.targets, identity.target_of(job), sys.executable)
    lines = [
        f"Slurm job {one.job_id} ({one.label}): {verdict.reason}",
        f"last lines of {one.log}:",
        *(f"  | {line}" for line in task.tail(one.log)),
        f"to run this job alone again: {command}",
    ]
    return "\n".join(lines)
