"""Snakemake's output says how often and why a job was started again."""

from __future__ import annotations

from .task import Task


def tell(one: Task, logger) -> None:
    """Each requeue once: the job's own ones as soon as they are written down, Slurm's when the job runs again."""
    restarts, done = one.restarts, one.requeues
    if restarts is None:
        return
    numbers = {requeue["life"]: number for number, requeue in enumerate(done, one.submission.resubmissions + 1)}
    whys = {requeue["life"]: requeue["why"] for requeue in done}
    last = max([one.requeues_told, restarts, *(life + 1 for life in whys)])
    for life in range(one.requeues_told, last):
        begin = f"Slurm job {one.job_id}, {one.label}: "
        if life in whys:
            logger.warning(f"{begin}requeue {numbers[life]} of {one.requeue_limit} after {whys[life]}")
        else:
            logger.warning(f"{begin}requeued by Slurm (preemption, lost node or scontrol requeue), start {life + 2}")
    one.requeues_told = last


def limit_of(request, settings) -> int:
    return settings.requeue_limit if request.requeue_limit is None else request.requeue_limit


def number_of_next(one: Task) -> int:
    """Of the submission that takes this one's place; the job may have counted it already."""
    return one.requeues_used + (0 if one.leaves else 1)
