"""What the Slurm executor leaves in its log folder. The format of these files is documented with the executor, in
plugins/snakemake-executor-plugin-submitit/docs/further.md (Files for others to read). Only read here, without its lock:
a last line that is being written is left for the next look."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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

    @property
    def log(self) -> Path:
        return self.folder / f"{self.job_id}_0_log.out"

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


def rules_of_ended(logdir: Path) -> tuple[dict[str, str], str | None]:
    """Rule by Slurm job id, of the jobs that have written how they ended; and why they can't be read, if so."""
    try:
        list(os.scandir(logdir))
    except FileNotFoundError:
        return {}, None
    except OSError:
        return {}, f"{logdir}: only its owner may read it"
    found = logdir.glob("*/*/*.outcome.json")
    return {path.name.partition(".")[0]: path.parent.parent.name for path in found}, None


def plain_name(name: str) -> str:
    """A job's name without the prefix that its site has chosen."""
    return name.partition(".")[2]
