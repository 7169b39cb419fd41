"""What Snakemake's output says about a job that has failed."""

from __future__ import annotations

import sys

from . import identity, logs
from .afterwards import memory_advice
from .rerun import rerun_command
from .task import Task, TaskVerdict


def failure_message(job, one: Task, verdict: TaskVerdict, workflow) -> str:
    """The reason, the ends of the logs, and the command that runs this job alone again."""
    command = rerun_command(sys.argv, workflow.dag_settings.targets, identity.target_of(job), sys.executable)
    advice = f"; {memory_advice(job.resources)}" if verdict.out_of_memory else ""
    lines = [f"Slurm job {one.job_id} ({one.label}): {verdict.reason}{advice}"]
    if not (workflow.output_settings.show_failed_logs and logs.all_shown_by_snakemake(job)):
        lines += logs.last_lines(job, one)
    return "\n".join([*lines, f"to run this job alone again: {command}"])
