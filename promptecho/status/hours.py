"""Hours of jobs and GPUs, used and to come."""

from __future__ import annotations

from collections import defaultdict
from statistics import median

from promptecho.status.job_list import JobList
from promptecho.status.kinds import HoursStatus, RunStatus
from promptecho.status.standing import DONE, RUNNING, JobStandings
from promptecho.status.timings import JobTiming


def hours_of(
    listed: JobList | None, standings: JobStandings, timings: dict[str, list[JobTiming]], runs: list[RunStatus]
) -> HoursStatus:
    """Of finished jobs, those that run, and those to come: as long as the median of their rule, trainings by their own
    speed."""
    hours = HoursStatus()

    def gpus(rule: str) -> int:
        return 0 if listed is None else listed.gpus(rule)

    for rule, measured in timings.items():
        used = sum(one.seconds for one in measured) / 3600
        hours.used, hours.gpu_used = hours.used + used, hours.gpu_used + used * gpus(rule)
    usual = {rule: median(one.seconds for one in measured) for rule, measured in timings.items()}
    left: dict[str, float] = defaultdict(float)
    unknown, trainings = set(), dict[str, str]()
    for standing in standings.jobs:
        rule = standing.job.rule
        if standing.state == RUNNING and standing.elapsed is not None:
            hours.used += standing.elapsed / 3600
            hours.gpu_used += standing.elapsed / 3600 * gpus(rule)
        if standing.state == DONE:
            continue
        if standing.job.run is not None:
            trainings[standing.job.run] = rule
        elif rule not in usual:
            unknown.add(rule)
        else:
            left[rule] += max(0.0, usual[rule] - (standing.elapsed or 0.0)) / 3600
    for run in runs:
        if run.run not in trainings or run.state == "finished":
            continue
        if run.seconds_left is None:
            unknown.add(trainings[run.run])
        else:
            left[trainings[run.run]] += run.seconds_left / 3600
    hours.to_come = sum(left.values())
    hours.gpu_to_come = sum(value * gpus(rule) for rule, value in left.items())
    hours.unknown = sorted(unknown)
    return hours
