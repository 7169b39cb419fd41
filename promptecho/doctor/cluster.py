"""What jobs ask of the cluster, compared with what its partitions have, as `sinfo` tells.

The executor compares more when Snakemake plans (accounts, qos, arrays); this needs no Snakemake, and knows what the
experiment's jobs ask.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from promptecho.config.job_sizes import Stage, cluster_resources, takes_gpu
from promptecho.doctor.finding import Finding, fine, problem, unchecked
from promptecho.doctor.preflight import JOBS, Preflight
from promptecho.doctor.profile import WorkflowProfile

RULES: dict[Stage, str] = {
    "caption": "caption_shard", "train": "train", "generate": "generate_shard", "judge": "judge", "score": "score",
    "guard": "guard",
}  # fmt: skip
SINFO = ("sinfo", "-h", "-a", "-e", "-o", "%P|%a|%l|%D|%c|%m|%G")
PATIENCE_S = 20


@dataclass(frozen=True)
class JobNeeds:
    """What one job asks for; of each node, but for `nodes`."""

    partition: str | None
    nodes: int
    gpus: int
    cpus: int
    mem_mb: int
    minutes: int


@dataclass(frozen=True)
class Nodes:
    """Nodes alike of a partition."""

    count: int
    cpus: int
    mem_mb: int
    gpus: int

    def fits(self, job: JobNeeds) -> bool:
        return self.cpus >= job.cpus and self.mem_mb >= job.mem_mb and self.gpus >= job.gpus

    def __str__(self) -> str:
        return f"{self.count} with {self.cpus} CPUs, {self.mem_mb} MB, {self.gpus or 'no'} GPUs"


@dataclass
class ClusterPartition:
    """A partition. `minutes` None: no limit."""

    name: str
    default: bool
    state: str
    minutes: int | None
    nodes: list[Nodes]


def cluster(preflight: Preflight) -> Iterator[Finding]:
    """Whether each stage's jobs could ever start in their partition."""
    profile = preflight.profile
    if profile is None or not profile.on_slurm:
        return
    when = "the first submission"
    if shutil.which("sinfo") is None:
        told = f"{profile.path}: partitions, time limits and GPUs: there is no sinfo on this machine"
        yield unchecked(told, when, "look again on a host that submits")
        return
    try:
        asked = subprocess.run(SINFO, capture_output=True, text=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        asked = None
    if asked is None or asked.returncode:
        why = (asked.stderr.strip().splitlines() or ["no answer"])[-1] if asked else f"no answer in {PATIENCE_S} s"
        yield unchecked(f"{profile.path}: partitions, time limits and GPUs: sinfo: {why}", when, "see to slurmctld")
        return
    partitions = parse_partitions(asked.stdout)
    told_once: set[str] = set()
    for stage, job in jobs_of(preflight):
        lines = list(misfits(partitions, job))
        for what, fix in lines:
            if what not in told_once:
                yield problem(f"{profile.path}: rule {RULES[stage]}: {what}", f"the start of {JOBS[stage]}", fix)
        told_once |= {what for what, _ in lines}
        if not lines:
            name = _name(partitions, job)
            yield fine(f"rule {RULES[stage]}: partition {name} has nodes for {_shown(job)}")


def jobs_of(preflight: Preflight) -> Iterator[tuple[Stage, JobNeeds]]:
    """(stage, what one of its jobs asks for), each different one once."""
    seen = set()
    for stage in JOBS:
        for name in preflight.names(stage):
            job = needs_of(preflight, stage, name)
            if (stage, job) not in seen:
                seen.add((stage, job))
                yield stage, job


def needs_of(preflight: Preflight, stage: Stage, name: str) -> JobNeeds:
    """What a job asks for; `name` as for `takes_gpu`."""
    config, profile = preflight.config, preflight.profile
    assert profile is not None, "on a cluster there is one"
    return _needs(cluster_resources(config, stage, takes_gpu(config, stage, name)), profile, RULES[stage])


def _needs(asked: Any, profile: WorkflowProfile, rule: str) -> JobNeeds:
    """What the experiment asks for, with what the profile says of the rule over it."""
    of_rule: Mapping[str, Any] = profile.rules.get(rule, {})

    def number(key: str, otherwise: int) -> int:
        value = of_rule.get(key, getattr(asked, key, None))
        return value if isinstance(value, int) else otherwise

    gpus = number("gpus_per_node", 0)
    if "gpu" in of_rule and isinstance(of_rule["gpu"], int):
        gpus = of_rule["gpu"]
    if found := re.search(r"gpu(?::[\w.-]+)?:(\d+)", str(of_rule.get("gres", ""))):
        gpus = int(found[1])
    threads, tasks = profile.threads.get(rule, asked.threads), number("tasks_per_node", 1)
    partition = profile.resources(rule).get("slurm_partition")
    return JobNeeds(
        str(partition) if partition else None, number("nodes", 1), gpus, threads * tasks, number("mem_mb", 0),
        number("runtime", 0),
    )  # fmt: skip


def parse_partitions(text: str) -> dict[str, ClusterPartition]:
    """Partitions by name from the lines of `SINFO`."""
    found: dict[str, ClusterPartition] = {}
    for line in text.splitlines():
        if len(parts := [part.strip() for part in line.split("|")]) != 7:
            continue
        name, state, limit, count, cpus, memory, gres = parts
        one = ClusterPartition(name.rstrip("*"), name.endswith("*"), state, _minutes(limit), [])
        nodes = found.setdefault(one.name, one).nodes
        if _number(count):
            nodes.append(Nodes(_number(count), _number(cpus), _number(memory), _gpus(gres)))
    return found


def _gpus(gres: str) -> int:
    """Of `gpu:a100:4(S:0-1),nvme:1`: 4."""
    found = 0
    for part in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, *rest = part.split(":")
        if name == "gpu":
            found += int(rest[-1]) if rest and rest[-1].isdigit() else 1
    return found


def _minutes(text: str) -> int | None:
    """Slurm's [DAYS-]HOURS:MINUTES:SECONDS or MINUTES:SECONDS; None for no limit."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):\d+", text)
    if not found:
        return None
    days, hours, minutes = (int(part or 0) for part in found.groups())
    return (24 * days + hours) * 60 + minutes


def _number(text: str) -> int:
    digits = re.match(r"\d+", text)
    return int(digits[0]) if digits else 0


def _name(partitions: Mapping[str, ClusterPartition], job: JobNeeds) -> str:
    default = next((one.name for one in partitions.values() if one.default), "")
    return job.partition or default


def misfits(partitions: Mapping[str, ClusterPartition], job: JobNeeds) -> Iterator[tuple[str, str]]:
    """(what a job asks for that its partition has not, the fix)."""
    there, name = ", ".join(partitions) or "none", _name(partitions, job)
    if not name:
        yield f"no slurm_partition, and the cluster has no default; there are: {there}", "set slurm_partition"
        return
    if "," in name:  # of several, Slurm takes the one that can start the job
        each = [list(misfits(partitions, JobNeeds(**{**vars(job), "partition": one}))) for one in name.split(",")]
        yield from min(each, key=len)
        return
    if name not in partitions:
        fix = "correct slurm_partition in the profile (default-resources or set-resources)"
        yield f"slurm_partition {name!r} does not exist; there are: {there}", fix
        return
    partition = partitions[name]
    if partition.state != "up":
        yield f"partition {name} is {partition.state}, not up", "choose another one, or ask the administrators"
    if partition.minutes is not None and job.minutes > partition.minutes:
        told = f"runtime {job.minutes} minutes: partition {name} allows {partition.minutes}"
        yield told, f"set runtime: {partition.minutes} (resources of the experiment, or set-resources)"
    fitting = sum(nodes.count for nodes in partition.nodes if nodes.fits(job))
    if fitting < job.nodes:
        kinds = "; ".join(map(str, partition.nodes)) or "none"
        told = f"{_shown(job)}: partition {name} has {fitting or 'no'} such nodes; its nodes: {kinds}"
        yield told, "ask for less (resources of the experiment, or set-resources), or choose another partition"


def _shown(job: JobNeeds) -> str:
    return f"{job.nodes} node(s) with {job.cpus} CPUs, {job.mem_mb} MB and {job.gpus or 'no'} GPUs each"
