"""Jobs by rule."""

from __future__ import annotations

from collections import defaultdict
from statistics import median

from promptecho.status.job_list import JobList
from promptecho.status.kinds import JobStatus, RuleStatus
from promptecho.status.standing import JobStanding, JobStandings
from promptecho.status.timings import JobTiming


def rules_of(
    listed: JobList | None, standings: JobStandings, timings: dict[str, list[JobTiming]], running: list[JobStatus]
) -> list[RuleStatus]:
    """In the order in which rules need each other.

    Args:
        timings: of finished jobs, by rule.
        running: the jobs that run, as `running_job` tells of them.
    """
    found: dict[str, RuleStatus] = {}
    for standing in _in_order(standings.jobs):
        rule = found.setdefault(standing.job.rule, RuleStatus(standing.job.rule))
        setattr(rule, standing.state, getattr(rule, standing.state) + 1)
    if not standings.jobs:
        found = {rule: RuleStatus(rule, done=len(measured)) for rule, measured in timings.items()}
    for name, rule in found.items():
        rule.gpus = 0 if listed is None else listed.gpus(name)
        if measured := timings.get(name):
            rule.seconds = median(one.seconds for one in measured)
        told = [one.progress for one in running if one.job.partition(" ")[0] == name and one.progress]
        if told:
            rule.rate, rule.unit = sum(one.rate for one in told), told[0].unit
    return list(found.values())


def _in_order(standings: list[JobStanding]) -> list[JobStanding]:
    """By rules, as the jobs of one need those of another: the last job of a rule decides."""
    jobs, depth = {one.job.key: one.job for one in standings}, dict[str, int]()
    looked_at = set[str]()  # lists of several starts together may have a circle
    for key in jobs:
        ahead = [key]
        while ahead:
            top = ahead[-1]
            looked_at.add(top)
            if missing := [one for one in jobs[top].needs if one in jobs and one not in looked_at]:
                ahead += missing
            else:
                ahead.pop()
                depth.setdefault(top, 1 + max((depth[one] for one in jobs[top].needs if one in depth), default=0))
    last: dict[str, int] = defaultdict(int)
    for job in jobs.values():
        last[job.rule] = max(last[job.rule], depth[job.key])
    return sorted(standings, key=lambda one: (last[one.job.rule], one.job.rule))
