"""Snakemake's mark of a job that has begun, which a killed Snakemake may leave on outputs that are whole."""

from __future__ import annotations

import os


def only_marked(job) -> bool:
    """Whether Snakemake wants a single job again only because an earlier start has left its mark on the outputs.

    That start has set the mark after the job itself, as Snakemake in it, took it away, and was killed before it
    recorded the end. To be asked before this start sets its own marks.
    """
    workflow = job.dag.workflow
    settings = workflow.dag_settings
    named = {os.path.abspath(str(one)) for one in settings.forcerun}
    outputs = {os.path.abspath(str(one)) for one in job.output}
    if settings.forceall or job.rule in job.dag.forcerules or named & outputs:
        return False
    if settings.forcetargets and job in job.dag.targetjobs:
        return False
    return all(map(os.path.lexists, outputs)) and bool(workflow.async_run(workflow.persistence.incomplete(job)))
