"""The report on the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from promptecho.errors import counted
from promptecho.upgrade.report import JobGroup, Report

SHOWN = 3  # files of a kind


def lines(report: Report) -> Iterator[str]:
    """The report in plain lines, the finished results that would be made again first."""
    jobs = sum(group.jobs for group in report.again)
    finished = counted(report.finished_jobs, "finished job stays", "finished jobs stay")
    if not report.again:
        yield f"version {report.version} would make nothing again of what is here; {finished} as they are"
    else:
        yield f"version {report.version} would make {counted(jobs, 'finished job')} again; {finished} as they are"
        for group in report.again:
            yield f"  {group.experiment or 'paper'}: {group.rule}, {counted(group.jobs, 'job')}: {'; '.join(group.why)}"
            if group.digests:
                pairs = ", ".join(f"{old or 'nothing'} -> {new or 'nothing'}" for old, new in group.digests)
                yield f"    recorded -> now: {pairs}"
            if group.newer:
                more = f" and {len(group.newer) - SHOWN} more" if len(group.newer) > SHOWN else ""
                yield f"    newer: {', '.join(group.newer[:SHOWN])}{more}"
            yield f"    {_cost(group)}"
        yield from _total(report.again, jobs)
    if report.unrecorded:
        yield (
            f"of those that stay, Snakemake has no record (.snakemake) of {report.unrecorded}: what these were made "
            "with is not known, and they count as they are"
        )
    if report.others:
        names = ", ".join(f"results/{name}" for name in report.others)
        yield f"not looked at, because config/config.yaml does not list them: {names}"
    if report.missing:
        told = ", ".join(f"{rule} {count}" for rule, count in report.missing.items())
        yield f"not there yet, and made in any case: {told}"
    for one in report.judge:
        where = f"{one['experiment']}: judge of {one['benchmark']}, {one['run']} at {one['step']}"
        if "unknown" in one:
            yield f"{where}: calls are not counted ({one['unknown']})"
        else:
            usd = "" if one["usd"] is None else f", about {one['usd']:.2f} USD"
            yield f"{where}: {counted(one['calls'], 'call')}{usd}; {one['recorded']} answered in its journals already"
    schemas = report.schemas
    if schemas.without or schemas.older:
        count = counted(schemas.without + schemas.older, "score or table file")
        yield f"{count} of {schemas.files} are of an earlier schema and are read as they are"
    if schemas.unreadable:
        yield f"{counted(len(schemas.unreadable), 'file')} cannot be read by this version:"
        yield from (f"  {line}" for line in schemas.unreadable)
    if report.refused:
        yield "Snakemake will refuse this, and start nothing:"
        yield from (f"  {line}" for line in report.refused.splitlines())
    elif report.again or report.missing:
        yield f"nothing was made or changed; to make it: {report.command}"


def _cost(group: JobGroup) -> str:
    return ", ".join(_parts(group.jobs, group.timed, group.seconds, group.priced, group.gpu_hours))


def _total(groups: list[JobGroup], jobs: int) -> Iterator[str]:
    timed, priced = sum(group.timed for group in groups), sum(group.priced for group in groups)
    seconds, hours = sum(group.seconds for group in groups), sum(group.gpu_hours for group in groups)
    yield f"  in all: {', '.join(_parts(jobs, timed, seconds, priced, hours))}"


def _parts(jobs: int, timed: int, seconds: float, priced: int, gpu_hours: float) -> Iterator[str]:
    if timed:
        of = "" if timed == jobs else f" ({timed} of {jobs} jobs)"
        yield f"{_time(seconds)} when they were made{of}"
    if priced > timed:
        yield f"{gpu_hours:.1f} GPU-hours ({priced - timed} of {jobs} jobs by the plan)"
    elif priced and gpu_hours:
        yield f"{gpu_hours:.1f} GPU-hours"
    if max(timed, priced) < jobs:
        yield f"of {counted(jobs - max(timed, priced), 'job')} no time is on record"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
