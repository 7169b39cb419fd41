"""Resources are judged before the first submission, and in dry runs already."""

from __future__ import annotations

import shutil
from collections.abc import Iterable

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from .identity import rule_of
from .resources import Request, ResourcesError, request_of
from .site import Site


def request_of_job(job) -> Request:
    """The request of a Snakemake job or group of jobs.

    Raises:
        ResourcesError: with all that is wrong with its resources.
    """
    return request_of(rule_of(job), dict(job.resources.items()), _threads(job))


def check_jobs(jobs: Iterable, settings, logger) -> Site | None:
    """Judge the resources of all `jobs` that are to be submitted, by themselves and by what the cluster has.

    Returns:
        What is known of the cluster, if it was asked.

    Raises:
        WorkflowError: with every problem, each once.
    """
    found: dict[str, dict[str, None]] = {}  # problems by rule, in order, each once
    requests: dict[tuple[str, Request, frozenset[str]], None] = {}
    for job in jobs:
        if not _is_submitted(job):
            continue
        rule = rule_of(job)
        try:
            requests[rule, request_of_job(job), frozenset()] = None
        except ResourcesError as error:
            requests[rule, error.rest, error.unread] = None
            found.setdefault(rule, {}).update(dict.fromkeys(error.problems))
    site = None if settings.skip_checks or not requests else _site([request for _, request, _ in requests], logger)
    hint = ""
    if site is not None:
        for rule, request, unread in requests:
            there = site.problems(request, rule, unread)
            if there:
                hint = " (--submitit-skip-checks leaves the judgement of partitions, accounts and nodes to Slurm)"
                found.setdefault(rule, {}).update(dict.fromkeys(there))
    if found:
        lines = _by_rule(found)
        raise WorkflowError("\n".join([f"Nothing was submitted; these resources can't be had{hint}:", *lines]))
    return site


def _by_rule(found: dict[str, dict[str, None]]) -> list[str]:
    """Problems rule after rule; what several rules share, such as a default, is one line with all their names."""
    rules: dict[str, list[str]] = {}
    for rule, lines in found.items():
        for line in lines:
            rules.setdefault(line.removeprefix(f"rule {rule}: "), []).append(rule)
    return [f"rule{'s' if len(names) > 1 else ''} {', '.join(names)}: {text}" for text, names in rules.items()]


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
    ever handed to it. It serves one dry run: the next one may be another executor's.
    """
    plugin = ExecutorPluginRegistry().plugins.get("dryrun")
    if plugin is None:
        return
    from snakemake.executors.dryrun import Executor

    class CheckingExecutor(Executor):
        def __init__(self, workflow, logger) -> None:
            plugin.executor = Executor
            super().__init__(workflow, logger)
            check_jobs(workflow.dag.needrun_jobs(), settings, logger)

    plugin.executor = CheckingExecutor
