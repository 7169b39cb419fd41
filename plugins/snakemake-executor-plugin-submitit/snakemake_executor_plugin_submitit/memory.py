"""What the kernel has counted of a job's memory.

Standard library only, and pickled by value with the payload, which asks it in the job.
"""

from __future__ import annotations

import re
from pathlib import Path

_NO_LIMIT = 2**60  # bytes; version 1 writes "none" as a number near 2**63
_MIB = 2**20  # Slurm's MB


def read(proc: Path = Path("/proc")) -> dict:
    """Of the Slurm job that this process is part of:

    kills      processes that the kernel has killed for lack of memory; None: it does not say
    of_job     these were the job's own; else any of the node's, as where Slurm has no memory control group
    limit_mb   what the job may use on this node; None: not known, or no limit
    peak_mb    the most that it has used; None: not known
    """
    found = {"kills": None, "of_job": False, "limit_mb": None, "peak_mb": None}
    for path, job, version in _groups(proc):
        kills = _kills_of_group(job, version)
        if kills is None:
            continue  # without the memory controller
        limits = [_number(one / ("memory.limit_in_bytes" if version == 1 else "memory.max")) for one in (*path, job)]
        limit = min((one for one in limits if one is not None and one < _NO_LIMIT), default=None)
        peak = _number(job / ("memory.max_usage_in_bytes" if version == 1 else "memory.peak"))
        return {"kills": kills, "of_job": True, "limit_mb": _mib(limit), "peak_mb": _mib(peak)}
    return {**found, "kills": _field(proc / "vmstat", "oom_kill")}


def since(before: dict, now: dict) -> dict:
    """`now`, with the kills since `before` only: a requeued job may find the group of its earlier life."""
    if now["kills"] is None or before["kills"] is None or now["of_job"] != before["of_job"]:
        return {**now, "kills": now["kills"] if now["of_job"] else None}
    return {**now, "kills": max(now["kills"] - before["kills"], 0)}


def _groups(proc: Path) -> list[tuple[list[Path], Path, int]]:
    """Where this process's memory control group may be: folders from its own up to below the job's; the job's; version.

    Slurm's are .../job_12/step_batch/task_0 and similar ones, in both versions.
    """
    found = []
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        version = 1 if controllers else 2
        for root, mounted in _mounts(proc, version):
            if not (path == root or path.startswith(root.rstrip("/") + "/")):
                continue
            folder = mounted / path[len(root.rstrip("/")) :].lstrip("/")
            folders = [folder, *folder.parents]
            job = next((one for one in folders if re.fullmatch(r"job_\d+", one.name)), None)
            if job is not None and job.is_dir():
                found.append((folders[: folders.index(job)], job, version))
    return found


def _mounts(proc: Path, version: int) -> list[tuple[str, Path]]:
    """What part of the tree of groups is to be seen where."""
    found = []
    for line in _text(proc / "self" / "mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.partition(" ")
        if kind == "cgroup2" if version == 2 else kind == "cgroup" and "memory" in re.split("[ ,]", options):
            root, mounted = left.split()[3:5]
            found.append((root, Path(mounted)))
    return found


def _kills_of_group(job: Path, version: int) -> int | None:
    if version == 2:  # a group's events are those of all below it too
        return _field(job / "memory.events", "oom_kill")
    counts = [_field(one, "oom_kill") for one in job.rglob("memory.oom_control")]
    known = [one for one in counts if one is not None]
    return sum(known) if known else None


def _field(path: Path, name: str) -> int | None:
    match = re.search(rf"^{name} (\d+)$", _text(path), re.MULTILINE)
    return int(match[1]) if match else None


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None  # "max"


def _mib(n: int | None) -> int | None:
    return None if n is None else round(n / _MIB)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # a step that has just ended took its group along
        return ""
