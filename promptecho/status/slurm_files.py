"""What the Slurm executor leaves in its log folder. The format of these files is documented with the executor, in
plugins/snakemake-executor-plugin-submitit/docs/further.md (Files for others to read). Only read here, without its lock:
a last line that is being written is left for the next look."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LOG = "_0_log.out"
_BEGUN = re.compile(r"^\[[^]]+\] (\S+): job \S+ on ", re.MULTILINE)  # what a job says first
_HEAD_BYTES, _NAME_BYTES = 4096, 120


@dataclass
class SlurmTask:
    """The newest submission of a job. `name` is the job's name in squeue without its prefix."""

    name: str
    folder: Path
    job_id: str | None  # None: sbatch has not answered yet
    resubmissions: int
    submitted: float  # seconds since the epoch
    ended: str | None = None  # success, failed, again, replaced, never

    def outcome(self) -> dict[str, Any] | None:
        """What the job has written at its end."""
        return self._json("outcome.json")

    def requeued(self) -> int:
        """How often it was started again so far, by itself and by the executor."""
        done = self._json("requeues")
        return self.resubmissions + (len(done) if isinstance(done, list) else 0)

    def node(self) -> str | None:
        """Where it has begun; None: it is not known to have."""
        with contextlib.suppress(OSError):
            return (self.folder / f"{self.job_id}.started").read_text().partition("\n")[0] or None
        return None

    def decided(self) -> float:
        """When it wrote how it ended, or else when it was submitted; seconds since the epoch."""
        with contextlib.suppress(OSError):
            return (self.folder / f"{self.job_id}.outcome.json").stat().st_mtime
        return self.submitted

    @property
    def log(self) -> Path:
        return self.folder / f"{self.job_id}{_LOG}"

    def _json(self, kind: str) -> Any:
        with contextlib.suppress(OSError, ValueError):
            return json.loads((self.folder / f"{self.job_id}.{kind}").read_bytes())
        return None


def read_ledger(logdir: Path) -> tuple[dict[str, SlurmTask], str | None]:
    """The newest submission of each job, by name; and why they can't be read, if they can't."""
    try:
        text = (logdir / "ledger.jsonl").read_bytes()
    except FileNotFoundError:
        return {}, None
    except OSError:
        return {}, f"{logdir}: only its owner may read it; running jobs are known by their names in squeue"
    found: dict[str, SlurmTask] = {}
    submissions: dict[str, list[SlurmTask]] = {}
    for line in text.split(b"\n"):
        with contextlib.suppress(ValueError, KeyError, IndexError, TypeError):
            event = json.loads(line)
            kind, tasks = event["event"], submissions.get(event["token"], [])
            if kind == "intent":
                about = Path(event["folder"]), None, event["resubmissions"], event["time"]
                tasks = [SlurmTask(plain_name(entry["name"]), *about) for entry in event["entries"]]
                submissions[event["token"]] = tasks
                found |= {task.name: task for task in tasks}
            elif kind == "submitted":
                for number, task in enumerate(tasks):
                    task.job_id = event["slurm_id"] if len(tasks) == 1 else f"{event['slurm_id']}_{number}"
            elif kind == "ended":
                tasks[event["index"]].ended = event["outcome"]
    return found, None


@dataclass(frozen=True)
class BegunTask:
    """A Slurm job that has begun. `name` as in `SlurmTask`; empty: its log does not tell it."""

    rule: str
    name: str


def read_begun(logdir: Path) -> tuple[dict[str, BegunTask], str | None]:
    """By Slurm job id, of all jobs that have begun; and why they can't be read, if so.

    By their logs, which stay when a job has ended well and its other files are gone.
    """
    try:
        list(os.scandir(logdir))
    except FileNotFoundError:
        return {}, None
    except OSError:
        return {}, f"{logdir}: only its owner may read it"
    found = {}
    for path in logdir.glob(f"*/*/*{_LOG}"):
        found[path.name.removesuffix(_LOG)] = BegunTask(path.parent.parent.name, _name_in(path))
    return found, None


def _name_in(log: Path) -> str:
    try:
        with log.open("rb") as file:
            told = _BEGUN.search(file.read(_HEAD_BYTES).decode(errors="replace"))
    except OSError:
        return ""
    return plain_name(told[1]) if told else ""


def plain_name(name: str) -> str:
    """A job's name without the prefix that its site has chosen."""
    return name.partition(".")[2]


def slurm_name(rule: str, wildcards: Mapping[str, str]) -> str:
    """What `plain_name` of a job gives, cut as the executor cuts it."""
    name = re.sub(r"[^\w.+=-]", "_", ".".join([rule, *wildcards.values()]))
    whole = name.encode()
    if len(whole) <= _NAME_BYTES:
        return name
    return f"{whole[: _NAME_BYTES - 9].decode(errors='ignore')}-{hashlib.sha256(whole).hexdigest()[:8]}"
