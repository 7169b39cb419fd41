"""What Snakemake's jobs and groups of jobs ask for, and who asked. Pure functions of Snakemake's jobs."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace

from snakemake.resources import GroupResources, Resources

from .group_resources import in_common
from .identity import single_jobs
from .resources import BY_DEFAULT, BY_RULE, BY_USER

_MEMORY = ("mem_mb", "mem_mb_per_cpu")


def origin_of(job) -> dict[str, int]:
    """Who gave each memory resource: `set-resources`, the rule, or a default; in a group the closest of all.

    A rule that repeats the default's value can't be distinguished from one that leaves it to the default.
    """
    found: dict[str, int] = {}
    for one in single_jobs(job):
        settings = one.dag.workflow.resource_settings
        default = Resources.from_mapping(settings.default_resources or {})
        closest = Resources.from_mapping(settings.overwrite_resources.get(one.rule.name, {}))
        for key in _MEMORY:
            if key not in one.rule.resources:
                continue
            given = one.rule.resources[key]
            by = BY_RULE
            if key in closest:
                by = BY_USER
            elif key in default and given == default[key]:
                by = BY_DEFAULT
            found[key] = max(found.get(key, by), by)
    return found


def functions_as_values(rules: Iterable) -> list[str]:
    """Resources of profiles and command lines that are the bare name of a Python function, such as a partition `all`.

    Snakemake evaluates them to the function, and then fails without saying which one it was.
    """
    found: dict[str, None] = {}
    for rule in rules:
        for one in rule.resources.values():
            if isinstance(one.raw, str) and callable(getattr(builtins, one.raw, None)):
                found[f"{one.name}={one.raw}: is a function of Python; text of this name needs quotes of its own: "
                      f"\"'{one.raw}'\""] = None  # fmt: skip
    return list(found)


def resources_of(job) -> dict[str, object]:
    """The resources of a job, or of a group: its sums, where a sum says what the group needs."""
    found = dict(job.resources.items())
    return _not_summed(found, single_jobs(job)) if job.is_group() else found


def sums_of(group, threads: Mapping[object, int]) -> dict[str, object]:
    """What a group will ask for in a real run, also where this is a dry run, which sums in another way.

    `threads`: of each of its jobs.

    Raises:
        WorkflowError: the jobs ask for different values of something that has no sum.
    """

    def single(job) -> SimpleNamespace:
        resources = {**dict(job.resources.items()), "_cores": threads[job]}
        return SimpleNamespace(resources=resources, pipe_group=job.pipe_group)

    levels = [[single(job) for job in level] for level in group.toposorted]
    limits = group.global_resources.copy()
    if group.dag.workflow.dryrun and limits["_cores"].value == 1:  # not limited: a dry run's own number
        limits["_cores"] = None
    sums = dict(GroupResources.basic_layered(levels, limits, run_local=False))
    return _not_summed(sums, single_jobs(group))


def names_of_the_user(workflow) -> frozenset[str]:
    """Resources that the user limits or has given a scope: they count jobs, whatever they are called."""
    settings = workflow.resource_settings
    return frozenset(workflow.global_resources) | frozenset(settings.overwrite_resource_scopes)


def _not_summed(resources: dict[str, object], jobs: Sequence) -> dict[str, object]:
    """All memory where one job wants all of it, and what the jobs have in common."""
    resources |= in_common([dict(job.resources.items()) for job in jobs])
    if any(job.resources.get("mem_mb") == 0 for job in jobs):
        resources["mem_mb"] = 0
    return resources
