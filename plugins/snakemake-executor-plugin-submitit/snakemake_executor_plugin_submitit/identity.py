"""What a Snakemake job is called, and how a later Snakemake knows it again. Pure functions of Snakemake's jobs."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Container, Sequence
from pathlib import Path

_NAME_LENGTH = 120  # bytes, without the prefix; it names folders, too
_MARK_LENGTH = 8


def single_jobs(job) -> list:
    """The jobs of a group, in order; a job alone."""
    return [one for level in job.toposorted for one in level] if job.is_group() else [job]


def rule_of(job) -> str:
    return job.groupid if job.is_group() else job.rule.name


def key_of(job) -> str:
    """Of the job's outputs (or, without any, its rule and wildcards): the same for every attempt to make them."""
    parts = [_outputs(one) or [one.rule.name, _wildcards(one)] for one in single_jobs(job)]
    return _digest(sorted(json.dumps(part, sort_keys=True) for part in parts))


def fingerprint_of(job) -> str:
    """Of what decides the outputs: rule, wildcards, input names, and the parameters that Snakemake records.

    A queued job of another fingerprint would make outputs that are not needed any more.
    """
    parts = [
        [one.rule.name, _wildcards(one), sorted(map(str, one.input)), sorted(map(_plain, one.non_derived_params))]
        for one in single_jobs(job)
    ]
    return _digest(sorted(json.dumps(part, sort_keys=True) for part in parts))


def code_of(job) -> str:
    """Of the command, Python code or script that makes the outputs, as Snakemake's trigger `code` sees it."""
    parts = [[one.rule.shellcmd or one.rule.run_func_src, _script(one)] for one in single_jobs(job)]
    return _digest(sorted(json.dumps(part) for part in parts))


def keys_of(job) -> set[str]:
    """Of the job and, in a group, of each of its jobs."""
    return {key_of(job), *map(key_of, single_jobs(job))}


def members_of(job) -> tuple[tuple[str, str, str], ...]:
    """Key, fingerprint and code of each job of a group; nothing for a single job."""
    return tuple((key_of(one), fingerprint_of(one), code_of(one)) for one in single_jobs(job)) if job.is_group() else ()


def _script(job) -> str | None:
    """Digest of a script or notebook on this host; it may be made by wildcards, or not be there."""
    path = job.rule.script or job.rule.notebook
    if not path:
        return None
    source = job._path_to_source_file(path).get_path_or_uri(secret_free=True)
    return hashlib.sha256(Path(source).read_bytes()).hexdigest() if os.path.isfile(source) else source


def label_of(job) -> str:
    """Rule and wildcards for people: `align sample=a part=20`."""
    if job.is_group():
        return f"group {job.groupid} ({', '.join(sorted({one.rule.name for one in single_jobs(job)}))})"
    return " ".join([job.rule.name, *(f"{name}={value}" for name, value in _wildcards(job).items())])


def some(names: Sequence[str], most: int = 3) -> str:
    """The first of many names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def natural_order(job) -> list:
    """Sorts jobs of a rule by their wildcards, numbers by value."""
    parts = re.split(r"(\d+)", label_of(job))
    return [int(part) if part.isdigit() else part for part in parts]


def job_name(prefix: str, job) -> str:
    """Name in squeue: prefix, rule and wildcard values, such as `smk.align.a.20`; a long one ends with its digest."""
    values = [] if job.is_group() else list(_wildcards(job).values())
    return f"{prefix}.{_name([rule_of(job), *values])}"


def array_name(prefix: str, jobs: Sequence) -> str:
    """Name of an array: prefix, rule, and the wildcard values that all its tasks share."""
    if any(job.is_group() for job in jobs):
        return f"{prefix}.{_name([rule_of(jobs[0])])}"
    first = _wildcards(jobs[0])
    shared = [value for name, value in first.items() if all(_wildcards(job).get(name) == value for job in jobs)]
    return f"{prefix}.{_name([rule_of(jobs[0]), *shared])}"


def folder_name(job) -> str:
    """Folder of a rule's jobs. Groups may have any name, also one with slashes or dots only."""
    return re.sub(r"[^\w+=-]", "_", _name([rule_of(job)]))


def comment_of(jobs: Sequence) -> str:
    """Slurm comment: the rule and its wildcards; of an array, those of the first and the last task."""
    labels = [label_of(job) for job in jobs]
    text = labels[0] if len(labels) == 1 else f"{labels[0]} ... {labels[-1]} ({len(labels)} tasks)"
    return re.sub(r"[^\w .,:=+/()-]", "_", text)[:250]


def outputs_to_check(job) -> list[str]:
    """Local outputs that must exist when the job has ended: no pipes, no temporary files inside a group."""
    grouped = job.is_group()
    return [
        str(output)
        for one in single_jobs(job)
        for output in one.output
        if not output.is_storage
        and not {"pipe", "service"} & set(output.flags)
        and not (grouped and "temp" in output.flags)
    ]


def newest_input(job, made_by: Container[str] = ()) -> float:
    """Latest modification time among the local inputs that are there; 0.0 if there are none.

    Without those that jobs make whose keys are in `made_by`.
    """
    times = [0.0]
    for one in single_jobs(job):
        inner = {
            path for other, files in one.dag.dependencies[one].items() if key_of(other) in made_by for path in files
        } if made_by else ()  # fmt: skip
        for path in one.input:
            if path not in inner and not path.is_storage and "ancient" not in path.flags and os.path.exists(path):
                times.append(os.stat(path).st_mtime)
    return max(times)


def target_of(job) -> str:
    """What Snakemake is asked for to run this job."""
    last = single_jobs(job)[-1]
    return next(iter(_outputs(last)), last.rule.name)


def _outputs(job) -> list[str]:
    return sorted(map(str, job.output))


def _wildcards(job) -> dict[str, str]:
    return {name: str(value) for name, value in (job.wildcards_dict or {}).items()}


def _name(parts: Sequence[str]) -> str:
    """One word, no longer than a file name may be with a token behind it; what is cut off is told by a digest."""
    text = re.sub(r"[^\w.+=-]", "_", ".".join(parts))
    whole = text.encode()
    if len(whole) <= _NAME_LENGTH:
        return text
    kept = whole[: _NAME_LENGTH - _MARK_LENGTH - 1].decode(errors="ignore")  # without a part of a character
    return f"{kept}-{hashlib.sha256(whole).hexdigest()[:_MARK_LENGTH]}"


def _plain(value: object) -> str:
    """The same text in every process for the same value, which repr of a set or an object would not be."""
    if isinstance(value, dict):
        return json.dumps({str(name): _plain(one) for name, one in value.items()}, sort_keys=True)
    if isinstance(value, (set, frozenset)):
        return json.dumps(sorted(map(_plain, value)))
    if isinstance(value, (list, tuple)):
        return json.dumps([_plain(one) for one in value])
    if value is None or isinstance(value, (str, int, float, bool)):
        return json.dumps(str(value))
    return type(value).__name__


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:24]
