"""Resources are judged before the first submission, and in dry runs already."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from . import asked
from .clusters import cluster_problem, environment_problem
from .identity import natural_order, single_jobs
from .resources import Request, ResourcesError, request_of
from .site import Site, cluster_name

_SKIP = "--submitit-skip-checks leaves the judgement of partitions, accounts and nodes to Slurm"
_OWN = "a name that --resources or --set-resource-scopes gives is your own and means nothing to Slurm"


def request_of_job(job) -> Request:
    """The request of a Snakemake job or group of jobs.

    Raises:
        ResourcesError: with all that is wrong with its resources.
    """
    return _request(job, asked.resources_of(job))


def check_jobs(jobs: Iterable, settings, logger) -> Site | None:
    """Judge the resources of all `jobs` that are to be submitted, by themselves and by what the cluster has.

    Jobs of a group are judged together, as they are submitted.

    Returns:
        What is known of the cluster, if it was asked.

    Raises:
        WorkflowError: with every problem, each once.
    """
    found = _Findings()
    groups: dict[object, None] = {}
    for job in jobs:
        if not _is_submitted(job):
            continue
        group = job if job.is_group() else job.dag.get_job_group(job)
        if group is None:
            found.read(job, asked.resources_of(job))
        else:
            groups[group] = None
    for group in groups:
        _read_group(group, found)
    requests = [request for _, request, _ in found.requests]
    site = None if settings.skip_checks or not requests else _site(requests, logger)
    named = "SLURM_CLUSTERS" in os.environ or any(request.cluster for request in requests)
    here = site.config.get("ClusterName") if site is not None else cluster_name() if named else None
    if problem := environment_problem(os.environ, here):
        raise WorkflowError(f"Nothing was submitted: {problem}")
    for whose, request, unread in found.requests:
        problem = cluster_problem(request.cluster, here, site.siblings if site is not None else ())
        found.say(whose, [problem] if problem else [])
        if site is not None:
            lines = site.problems(request, whose, unread)
            found.say(whose, [line.removeprefix(f"rule {whose}: ") for line in lines], _SKIP)
    if found.problems:
        hint = f" ({'; '.join(found.hints)})" if found.hints else ""
        lines = _by_rule(found.problems)
        raise WorkflowError("\n".join([f"Nothing was submitted; these resources can't be had{hint}:", *lines]))
    return site


def in_order(workflow) -> list:
    """Jobs that are to be run, in the order of the workflow's rules: Snakemake's set of them has another one each time,
    and so would what is said of them."""
    place = {rule.name: number for number, rule in enumerate(workflow.rules)}
    return sorted(workflow.dag.needrun_jobs(), key=lambda job: (place[job.rule.name], natural_order(job)))


def check_expressions(workflow) -> None:
    """Called before any code asks for resources of jobs.

    Raises:
        WorkflowError: some can't have a value.
    """
    if problems := asked.functions_as_values(workflow.rules):
        raise WorkflowError("\n".join(["Nothing was submitted; these resources can't be had:", *problems]))


class _Findings:
    """Problems by rule or group, in order and each once; and the requests that the cluster is to be asked about."""

    def __init__(self) -> None:
        self.problems: dict[str, dict[str, None]] = {}
        self.requests: dict[tuple[str, Request, frozenset[str]], None] = {}
        self.hints: dict[str, None] = {}

    def say(self, whose: str, lines: Iterable[str], hint: str | None = None) -> None:
        if lines := dict.fromkeys(lines):
            self.problems.setdefault(whose, {}).update(lines)
            if hint:
                self.hints[hint] = None

    def read(self, job, resources, ask: bool = True) -> tuple[bool, tuple[str, Request, frozenset[str]]]:
        """Whether resources make sense, and what they ask for, as far as they do."""
        whose = _whose(job)
        fine, unread = True, frozenset()
        try:
            request = _request(job, resources)
        except ResourcesError as error:
            fine, request, unread = False, error.rest, error.unread
            lines = [line.removeprefix(f"{whose}: ") for line in error.problems]
            self.say(whose, lines, _OWN if error.foreign else None)
        if ask:
            self.requests[whose, request, unread] = None
        return fine, (whose, request, unread)


def _read_group(group, found: _Findings) -> None:
    """What is wrong with one job is reported for its rule; the sums then need no report of their own."""
    jobs = single_jobs(group)
    read = [found.read(job, dict(job.resources.items()), ask=False) for job in jobs]
    if not all(fine for fine, _ in read):
        found.requests.update((request, None) for _, request in read)
        return
    try:
        sums = asked.sums_of(group, {job: _threads(job) for job in jobs})
    except WorkflowError as error:
        found.say(_whose(group), [" ".join(str(error).split())])
        return
    found.read(group, sums)


def _whose(job) -> str:
    if not job.is_group():
        return f"rule {job.rule.name}"
    rules = sorted({one.rule.name for one in single_jobs(job)})
    return f"group {job.groupid} (rule{'s' if len(rules) > 1 else ''} {', '.join(rules)}, summed up)"


def _request(job, resources) -> Request:
    kind, _, name = _whose(job).partition(" ")
    threads = resources.get("_cores", 1) if job.is_group() else _threads(job)
    return request_of(
        name, resources, threads, kind=kind, origin=asked.origin_of(job),
        own=asked.names_of_the_user(job.dag.workflow),
    )  # fmt: skip


def _by_rule(found: dict[str, dict[str, None]]) -> list[str]:
    """Problems rule after rule; what several rules share, such as a default, is one line with all their names."""
    shared: dict[str, list[str]] = {}
    for whose, lines in found.items():
        for line in lines:
            shared.setdefault(line, []).append(whose)
    return [f"{_names(everybody)}: {text}" for text, everybody in shared.items()]


def _names(everybody: list[str]) -> str:
    rules = [one.removeprefix("rule ") for one in everybody if one.startswith("rule ")]
    groups = [one for one in everybody if not one.startswith("rule ")]
    first = [f"rule{'s' if len(rules) > 1 else ''} {', '.join(rules)}"] if rules else []
    return ", ".join(first + groups)


def _site(requests: list[Request], logger) -> Site | None:
    if shutil.which("sinfo") is None:
        logger.info("sinfo is not on this machine: resources are not compared with what the cluster has.")
        return None
    site = Site.read(reservations=any(request.reservation for request in requests))
    for note in site.notes:
        logger.warning(f"Resources are compared with the cluster only in part: {note}")
    return site


def _is_submitted(job) -> bool:
    if job.is_group() or not job.dag.workflow.dryrun:
        return not job.is_local
    # All jobs of a dry run are local; what Snakemake asks of rules in a real run is asked here.
    rule = job.rule
    return rule.group is not None or not (
        rule.name in job.dag.workflow._localrules or rule.norun or rule.is_template_engine
    )


def _threads(job) -> int:
    """Threads as in a real run: a dry run without --cores counts with one core and cuts them down to it."""
    workflow = job.dag.workflow
    if job.is_group() or not workflow.dryrun or workflow.resource_settings.cores != 1:
        return job.threads
    asked = job.rule.resources["_cores"]
    if asked.is_evaluable():
        return job.threads
    most = workflow.resource_settings.max_threads
    return asked.value if most is None else min(asked.value, most)


def install_in_dry_runs(settings) -> None:
    """Let a dry run of this process check resources, too.

    A dry run puts Snakemake's own `dryrun` executor in place of the chosen one, of which only the settings are made;
    so they are where this can be asked for. The check sits where the executor is made, because with --quiet no job is
    ever given to it. It serves one dry run: the next one may be another executor's.
    """
    plugin = ExecutorPluginRegistry().plugins.get("dryrun")
    if plugin is None:
        return
    from snakemake.executors.dryrun import Executor

    class CheckingExecutor(Executor):
        def __init__(self, workflow, logger) -> None:
            plugin.executor = Executor
            super().__init__(workflow, logger)
            check_expressions(workflow)
            check_jobs(in_order(workflow), settings, logger)

    plugin.executor = CheckingExecutor
