"""What jobs asked for against what they used, by rule, and better requests for the profile to copy.

Used is what sacct says of the Slurm jobs, where it answers, and else what Snakemake has measured (timings.py) and the
trainer has written (memory of the GPU). What nobody has measured is told as unknown, never as 0.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from promptecho.errors import DataError, counted
from promptecho.status.job_list import FOLDER, JobList, read_job_list
from promptecho.status.queue import ask_accounting, seconds
from promptecho.status.slurm_files import BegunTask, read_begun
from promptecho.status.timings import read_timings
from promptecho.train.watch import chosen_runs

FEW = 3  # jobs of a rule, from which on a request is worth changing
MEMORY_ROOM, TIME_ROOM = 1.25, 1.5  # above the most that was used
_UNITS = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}


@dataclass(frozen=True)
class JobUse:
    """What one job used; None: not measured. `cpus` are those it asked for, as the list of jobs or sacct has them."""

    seconds: float
    cpu_s: float | None = None
    peak_mb: float | None = None


@dataclass
class RuleUse:
    """A rule: what each of its jobs asks for (None: not known), and the most and the mean that they used."""

    rule: str
    jobs: int
    source: str  # sacct, timings
    asked: dict[str, int]
    seconds_mean: float
    seconds_most: float
    cpus_used: float | None  # mean of processors that were busy
    peak_mb: float | None
    gpu_gb: float | None = None
    unknown: list[str] = field(default_factory=list)
    better: dict[str, int] = field(default_factory=dict)


@dataclass
class Efficiency:
    """Of an experiment."""

    experiment: str
    rules: list[RuleUse]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(results: Path) -> Efficiency:
    """Of results/E. Reads only; where there were Slurm jobs, it calls sacct once for each thousand.

    Raises:
        DataError: no such folder, or a damaged file in it.
    """
    if not results.is_dir():
        raise DataError(f"{results}: no such folder; give an experiment's results, such as results/shapes")
    listed = read_job_list(results)
    notes = []
    if listed is None:
        notes.append("what jobs asked for: unknown, as no list of jobs is here (Snakemake writes one when it starts)")
    used, told = _of_slurm(results, listed)
    notes += told
    by_rule = {rule: ("sacct", uses) for rule, uses in used.items()}
    for rule, measured in read_timings(results).items():
        by_rule.setdefault(rule, ("timings", [JobUse(one.seconds, one.cpu_s, one.peak_mb) for one in measured]))
    gpu_gb = _memory_of_trainings(results)
    found = []
    for rule, (source, uses) in sorted(by_rule.items()):
        found.append(_rule(rule, source, uses, {} if listed is None else listed.rules.get(rule, {})))
        if rule == "train" and listed is not None and listed.gpus(rule):
            found[-1].gpu_gb = gpu_gb
    if any(one.asked.get("gpu") or one.asked.get("gpus_per_node") for one in found):
        notes.append(
            "how busy GPUs were: unknown but for trainings, whose rows of metrics have MFU (promptecho status)"
        )
    return Efficiency(str(results), found, notes)


def _rule(rule: str, source: str, uses: Sequence[JobUse], asked: dict[str, Any]) -> RuleUse:
    cpu = [(use.cpu_s, use.seconds) for use in uses if use.cpu_s is not None]
    wall = sum(second for _, second in cpu)
    peaks = [use.peak_mb for use in uses if use.peak_mb is not None]
    told = RuleUse(
        rule=rule,
        jobs=len(uses),
        source=source,
        asked={name: value for name, value in asked.items() if not isinstance(value, bool)},
        seconds_mean=sum(use.seconds for use in uses) / len(uses),
        seconds_most=max(use.seconds for use in uses),
        cpus_used=sum(busy for busy, _ in cpu) / wall if wall > 0 else None,
        peak_mb=max(peaks, default=None),
    )
    told.unknown = [name for name, value in (("CPU", told.cpus_used), ("memory", told.peak_mb)) if value is None]
    told.better = _better(told)
    return told


def _better(use: RuleUse) -> dict[str, int]:
    """Requests that differ from what was asked for by more than a fifth, in the units of the profile."""
    if use.jobs < FEW:
        return {}
    wanted = {"runtime": _up(use.seconds_most / 60 * TIME_ROOM, 10)}
    if use.peak_mb is not None:
        wanted["mem_mb"] = _up(use.peak_mb * MEMORY_ROOM, 500)
    if use.cpus_used is not None and "threads" in use.asked:
        wanted["threads"] = max(1, min(math.ceil(use.cpus_used), use.asked["threads"]))
    return {
        name: value
        for name, value in wanted.items()
        if name in use.asked and abs(value - use.asked[name]) > 0.2 * use.asked[name]
    }


def _up(value: float, step: int) -> int:
    return max(step, math.ceil(value / step) * step)


def snippet(rules: Sequence[RuleUse]) -> str:
    """The better requests as the profile's YAML; empty where all are good."""
    lines: list[str] = []
    for key, names in (("set-threads", ("threads",)), ("set-resources", ("runtime", "mem_mb"))):
        chosen = {use.rule: {name: use.better[name] for name in names if name in use.better} for use in rules}
        chosen = {rule: values for rule, values in chosen.items() if values}
        if not chosen:
            continue
        lines.append(f"{key}:")
        for rule, values in chosen.items():
            if key == "set-threads":
                lines.append(f"  {rule}: {values['threads']}")
            else:
                lines += [f"  {rule}:", *(f"    {name}: {value}" for name, value in values.items())]
    return "\n".join(lines)


def _of_slurm(results: Path, listed: JobList | None) -> tuple[dict[str, list[JobUse]], list[str]]:
    """By rule, of the jobs that have ended well."""
    if listed is None or listed.root is None or listed.logdir is None:
        return {}, []
    begun, problem = read_begun(listed.root / listed.logdir)
    if problem:
        return {}, [f"{problem}: of Slurm jobs only Snakemake's own timings are known"]
    experiments = {results.name, *_beside(results)}
    begun = {job_id: one for job_id, one in begun.items() if _experiment(one, experiments) in ("", results.name)}
    rows, problem = ask_accounting(
        {job_id.partition("_")[0] for job_id in begun}, "JobID,State,ElapsedRaw,TotalCPU,MaxRSS", steps=True
    )
    if problem:
        return {}, [f"{problem}: of Slurm jobs only Snakemake's own timings are known"]
    jobs: dict[str, dict[str, Any]] = {}
    for job, state, elapsed, cpu, peak in (row[:5] for row in rows if len(row) >= 5):
        job_id, _, step = job.partition(".")
        about = jobs.setdefault(job_id, {})
        if not step:
            about |= {"state": state, "seconds": float(elapsed or 0), "cpu_s": seconds(cpu)}
        if (size := megabytes(peak)) is not None:
            about["peak_mb"] = max(size, about.get("peak_mb", 0.0))
    found: dict[str, list[JobUse]] = defaultdict(list)
    if begun and not jobs:
        return {}, ["sacct does not know these Slurm jobs (any more): only Snakemake's own timings are known"]
    names, nameless = {job.rule for job in listed.jobs}, 0
    for job_id, about in jobs.items():
        one = begun.get(job_id)
        if one is not None and one.rule in names and about.get("state") == "COMPLETED":
            nameless += not one.name
            found[one.rule].append(JobUse(about["seconds"], about["cpu_s"], about.get("peak_mb")))
    notes = []
    if nameless and len(experiments) > 1:
        notes.append(f"{counted(nameless, 'Slurm job')} may be of another experiment: the log does not name it")
    unmeasured = sorted(rule for rule, uses in found.items() if all(use.peak_mb is None for use in uses))
    if unmeasured:
        notes.append(f"sacct knows no memory of {', '.join(unmeasured)} (JobAcctGatherType is not set there)")
    return found, notes


def _experiment(task: BegunTask, known: Collection[str]) -> str:
    """Which of the known experiments a job is of, as its name has it after the rule; empty where it has no name, and
    `?` where it is of none of them."""
    if not task.name:
        return ""
    name = f"{task.name.removeprefix(f'{task.rule}.')}."
    return max((one for one in known if name.startswith(f"{one}.")), key=len, default="?")


def _beside(results: Path) -> list[str]:
    """Other experiments that Snakemake was started for in the same folder."""
    return sorted({path.parents[2].name for path in results.parent.glob(f"*/{FOLDER}/*.json")} - {results.name})


def megabytes(text: str) -> float | None:
    """Of Slurm's sizes, such as 1234K; None for an empty one."""
    if not text:
        return None
    try:
        return float(text[:-1]) * _UNITS[text[-1].upper()] if text[-1].isalpha() else float(text) / 1024**2
    except (ValueError, KeyError):
        return None


def _memory_of_trainings(results: Path) -> float | None:
    """Peak of all iterations, in GB: of each GPU, or of each process where there is none."""
    most = None
    for metrics, _ in chosen_runs(results, []):
        for row in metrics.rows:
            values = [value for key, value in row.items() if key.startswith("memory_gb_")]
            most = max([*values, *([] if most is None else [most])], default=None)
    return most
