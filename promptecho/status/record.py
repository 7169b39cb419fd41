"""The workflow's main process notes what it is about to make, once its plan stands (see job_list.py)."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from promptecho.errors import DataError
from promptecho.files import digest, write_text
from promptecho.status.job_list import FOLDER, SCHEMA_VERSION, read_list, started_at, trains
from promptecho.status.stop import take_back

RESOURCES = ("mem_mb", "runtime", "gpu", "gpus_per_node", "nodes", "tasks_per_node", "requeue_limit", "resumable")


def record_jobs(workflow: Any, experiments: Any, placed: Callable[[str], str]) -> None:
    """Write down the planned jobs of each experiment, and take back requests to stop what is asked for now.

    Args:
        experiments: name -> configuration; `paths` says where each resolved configuration is.
        placed: where a path of ours lies in a workflow that takes us as a module.
    """
    try:
        _record_jobs(workflow, experiments, placed)
    except Exception as error:  # a convenience, that reads Snakemake's own objects, must not keep jobs from running
        print(f"`promptecho status` will not know these jobs: {type(error).__name__}: {error}", file=sys.stderr)


def _record_jobs(workflow: Any, experiments: Any, placed: Callable[[str], str]) -> None:
    planned: dict[str, list[Any]] = defaultdict(list)
    for job in workflow.dag.jobs:
        name = job.wildcards_dict.get("E", "") if job.output else ""
        if name in experiments and str(job.output[0]).startswith(f"{placed(f'results/{name}')}/"):
            planned[name].append(job)
    needed = set(workflow.dag.needrun_jobs())
    for name, jobs in planned.items():
        for job in needed.intersection(jobs):
            if trains(map(str, job.output)):
                _go_on(Path(placed(f"results/{name}")), job.wildcards.R)
    for name, jobs in planned.items():
        if needed.isdisjoint(jobs):
            continue  # nothing is begun: what an earlier start has planned stays to be seen
        results = placed(f"results/{name}")
        about = _about(workflow, experiments, name, results)
        told = about | {"rules": _rules(workflow, jobs, needed), "jobs": _jobs(workflow.dag, jobs, needed)}
        path = Path(results) / FOLDER / f"{digest([about['config'], *about['targets']])}.json"
        _drop_old(path.parent, about["config"])
        write_text(path, json.dumps(told, ensure_ascii=False) + "\n")


def _go_on(results: Path, run: str) -> None:
    try:
        take_back(results, run)
    except OSError as error:  # of another user, perhaps; the other runs go on all the same
        print(f"{error.filename}: can't be removed ({error.strerror}); {run} stays stopped", file=sys.stderr)


def _about(workflow: Any, experiments: Any, name: str, results: str) -> dict[str, Any]:
    settings, targets = workflow.executor_settings, [str(one) for one in workflow.dag_settings.targets or ()]
    executor = workflow.executor_plugin.name
    logdir = settings.logdir if executor == "submitit" else None  # others have logs of other forms
    source = Path(experiments.site.experiments_dir) / f"{name}.yaml"
    return {
        "schema_version": SCHEMA_VERSION,
        "started": time.time(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "pid_started": started_at(os.getpid()) or 0,
        "config": Path(experiments.paths[name]).name,
        "prefix": results,
        "source": str(source) if source.is_file() else None,
        "command": without_targets(sys.argv, targets),
        "targets": targets,
        "executor": executor,
        "logdir": None if logdir is None else str(logdir),
        "requeue_limit": settings.requeue_limit if executor == "submitit" else None,
    }


def without_targets(arguments: Sequence[str], targets: Iterable[str]) -> list[str]:
    """Snakemake's command line less its targets, of each the last word that is it."""
    program, *words = arguments
    if "--" in words:
        words = words[: words.index("--")]
    else:
        for target in targets:
            if target in words:
                del words[len(words) - 1 - words[::-1].index(target)]
    return ["snakemake" if program.endswith(("snakemake", "__main__.py")) else program, *words]


def _rules(workflow: Any, jobs: list[Any], needed: set[Any]) -> dict[str, dict[str, Any]]:
    """What one job of each rule asks for: those of one experiment ask for the same. To ask each would cost as much as
    the plan."""
    first = {job.rule.name: job for job in sorted(jobs, key=lambda job: job in needed)}
    return {rule: _resources(workflow, job) for rule, job in sorted(first.items())}


def _resources(workflow: Any, job: Any) -> dict[str, Any]:
    try:
        asked = {name: job.resources.get(name) for name in RESOURCES}
        asked = {name: value for name, value in asked.items() if isinstance(value, int)}
        asked |= {"threads": int(job.threads)}
    except Exception:  # a function of a profile, which Snakemake itself will name when the job's turn comes
        asked = {}
    return asked | {"local": bool(workflow.is_local(job.rule))}


def _jobs(dag: Any, jobs: list[Any], needed: set[Any]) -> list[dict[str, Any]]:
    numbers = {job: number for number, job in enumerate(jobs)}
    return [
        {
            "rule": job.rule.name,
            "wildcards": {key: str(value) for key, value in job.wildcards_dict.items()},
            "outputs": [str(file) for file in job.output],
            "log": str(job.log[0]) if job.log else None,
            "timing": str(job.benchmark) if job.benchmark else None,
            "needed": job in needed,
            "needs": sorted(numbers[other] for other in dag.dependencies[job] if other in numbers),
        }
        for job in jobs
    ]


def _drop_old(folder: Path, config: str) -> None:
    """Lists of other configurations whose Snakemake has ended on this machine."""
    for path in folder.glob("*.json"):
        try:
            other = read_list(path)
        except DataError:
            continue  # told when somebody looks
        if other is not None and other.config != config and other.alive is False:
            path.unlink(missing_ok=True)
