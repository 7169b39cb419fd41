"""The jobs that Snakemake was started to make: results/E/work/jobs/DIGEST.json, one file for each set of targets.

Snakemake keeps its plan in memory only, and to plan again takes longer than anybody wants to look at a screen. So its
main process notes the plan when it starts (record.py), and what has become of each job is read from files. A file:

    schema_version  1
    started         seconds since the epoch; host, pid, pid_started: the process that has started, as Linux knows it
    config          name of the resolved configuration, in results/E/config
    prefix          results/E as Snakemake writes it: relative to the folder in which it was started
    source          the experiment's file, relative to the same folder; null where it is not known
    command         Snakemake's words without the targets; targets: those
    executor        local, submitit, ...; logdir, requeue_limit: of the executor submitit, else null
    rules           rule -> resources of its jobs, `local` where they run beside Snakemake itself
    jobs            rule, wildcards, outputs, log, timing, needed (else it was there already), needs (numbers of jobs)
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from promptecho.errors import DataError

FOLDER, SCHEMA_VERSION = "work/jobs", 1


@dataclass(frozen=True)
class ListedJob:
    """One job of a plan; paths are relative to the folder in which Snakemake was started."""

    rule: str
    wildcards: dict[str, str]
    outputs: tuple[str, ...]
    log: str | None
    timing: str | None
    needed: bool
    needs: tuple[str, ...] = ()  # first outputs of the jobs that come before it
    since: float = 0.0  # the start that has planned it
    asked: bool = True  # by the newest start, or by another that still runs
    alive: bool | None = None  # whether that start still runs, as of its list
    host: str = ""  # where it was started

    @property
    def key(self) -> str:
        return self.outputs[0]

    @property
    def label(self) -> str:
        """Rule and wildcards, without the experiment's name."""
        return " ".join([self.rule, *(value for name, value in self.wildcards.items() if name != "E")])

    @property
    def run(self) -> str | None:
        """That it trains; None: it does something else."""
        return self.wildcards.get("R") if trains(self.outputs) else None


@dataclass(frozen=True)
class JobList:
    """What is planned for an experiment; see above for what most fields say."""

    path: Path
    started: float
    host: str
    pid: int
    pid_started: int
    config: str
    prefix: str
    source: str | None
    command: tuple[str, ...]
    targets: tuple[str, ...]
    executor: str
    logdir: str | None
    requeue_limit: int | None
    rules: dict[str, dict[str, Any]]
    jobs: tuple[ListedJob, ...]

    @cached_property
    def alive(self) -> bool | None:
        """Whether the Snakemake that has written this still runs; None where another machine would have to tell."""
        if self.host != socket.gethostname():
            return None
        return started_at(self.pid) == self.pid_started

    @cached_property
    def root(self) -> Path | None:
        """The folder in which Snakemake was started, seen from here; None where results were moved elsewhere."""
        results = self.path.absolute().parents[2]
        parts = Path(self.prefix).parts
        inside = not Path(self.prefix).is_absolute() and results.parts[-len(parts) :] == parts
        return results.parents[len(parts) - 1] if parts and inside else None

    def gpus(self, rule: str) -> int:
        """Of each job of a rule."""
        asked = self.rules.get(rule, {})
        return asked.get("gpu") or asked.get("gpus_per_node", 0) * max(asked.get("nodes", 1), 1)


def trains(outputs: Iterable[str]) -> bool:
    """Whether a job with these outputs is a training, whatever its rule is called in somebody's workflow."""
    return {"adapter", "state"} <= {output.rpartition("/")[2] for output in outputs}


def started_at(pid: int) -> int | None:
    """When a process of this machine started, in the kernel's ticks; with its number, that names it for ever."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return None


def read_job_list(results: Path) -> JobList | None:
    """What the newest start in `results` (results/E) has planned, and others of the same configuration besides.

    One that still runs comes before a newer one that has ended.

    Raises:
        DataError: a list is damaged.
    """
    try:
        paths = [results / FOLDER / name for name in os.listdir(results / FOLDER) if name.endswith(".json")]
    except OSError:  # not there, or its owner keeps it to himself
        return None
    found = [one for path in paths if (one := read_list(path)) is not None]
    if not found:
        return None
    newest, *others = sorted(found, key=lambda one: (one.alive is True, one.started), reverse=True)
    jobs: dict[str, ListedJob] = {}
    rules: dict[str, dict[str, Any]] = {}
    for one in [newest, *(other for other in others if other.config == newest.config)]:
        asked = one is newest or bool(one.alive)
        for job in one.jobs:
            jobs.setdefault(job.key, replace(job, asked=asked, alive=one.alive, host=one.host))
        rules = one.rules | rules
    return replace(newest, jobs=tuple(jobs.values()), rules=rules)


def read_list(path: Path) -> JobList | None:
    try:
        told = json.loads(path.read_bytes())
        if told["schema_version"] > SCHEMA_VERSION:
            raise DataError(f"{path}: written by a newer version; look with that one")
        firsts = [job["outputs"][0] for job in told["jobs"]]
        jobs = tuple(
            ListedJob(
                rule=job["rule"],
                wildcards=job["wildcards"],
                outputs=tuple(job["outputs"]),
                log=job["log"],
                timing=job["timing"],
                needed=job["needed"],
                needs=tuple(firsts[number] for number in job["needs"]),
                since=told["started"],
            )
            for job in told["jobs"]
        )
        plain = {name: value for name, value in told.items() if name not in ("schema_version", "jobs")}
        plain |= {name: tuple(told[name]) for name in ("command", "targets")}
        return JobList(path=path, jobs=jobs, **plain)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(
            f"{path}: not a list of jobs ({type(error).__name__}: {error}); delete it, the next start writes it again"
        ) from None


def records_of(root: Path) -> Path:
    """Snakemake's own records of a working folder."""
    return root / ".snakemake"


def time_of(path: str | Path) -> float | None:
    """When an output was made, as Snakemake sees it; None where it is not there."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    made = found.st_mtime
    if not stat.S_ISREG(found.st_mode):  # a folder, perhaps behind a link
        with contextlib.suppress(OSError):
            made = max(made, os.lstat(os.path.join(path, ".snakemake_timestamp")).st_mtime)
    return made
