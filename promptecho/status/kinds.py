"""What is known of an experiment at one moment, as numbers and words; report.py fills it in."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from promptecho.status.rates import JobProgress


@dataclass
class RuleStatus:
    """Jobs of one rule by state; `seconds`: the median of those done; `rate` of all that run, in `unit`s a second."""

    rule: str
    done: int = 0
    running: int = 0
    pending: int = 0
    failed: int = 0
    interrupted: int = 0
    seconds: float | None = None
    gpus: int = 0
    rate: float | None = None
    unit: str = ""

    @property
    def total(self) -> int:
        return self.done + self.running + self.pending + self.failed + self.interrupted


@dataclass
class RunStatus:
    """A training. `memory_gb`: peak of its last iteration; `limit`: in words, where Slurm's limit comes first."""

    run: str
    state: str
    iteration: int
    total: int | None
    segments: str  # how many are done, of how many
    reward: float | None = None
    reward_change: float | None = None
    images_per_s: float | None = None
    mfu: float | None = None
    memory_gb: float | None = None
    seconds_left: float | None = None
    seconds_since_row: float | None = None
    limit: str = ""
    stop_asked: bool = False
    warnings: list[str] = field(default_factory=list)


@dataclass
class JobStatus:
    """A job that runs, waits or has ended badly."""

    job: str
    state: str
    reason: str = ""
    slurm: str | None = None
    node: str | None = None
    elapsed: float | None = None
    limit_s: float | None = None
    progress: JobProgress | None = None
    seconds_left: float | None = None
    limit: str = ""
    start: float | None = None
    last_line: str = ""
    log: str = ""
    command: str = ""


@dataclass
class WaitingStatus:
    """Jobs that wait for the same reason; `start`: when Slurm expects to start the first of them."""

    reason: str
    jobs: int
    first: str
    start: float | None = None


@dataclass
class JudgeStatus:
    """What a judge was asked. `reused`: answers that jobs found in the record instead of asking."""

    judge: str
    calls: int
    answered: int
    failed: int
    reused: int
    under_way: int
    usd: float | None


@dataclass
class HoursStatus:
    """Hours of jobs and of their GPUs: used by ended and running ones, and to come, of as many rules as can be told."""

    used: float = 0.0
    gpu_used: float = 0.0
    to_come: float = 0.0
    gpu_to_come: float = 0.0
    unknown: list[str] = field(default_factory=list)  # rules of which no job has ended yet


@dataclass
class ExperimentStatus:
    """An experiment at one moment."""

    experiment: str
    time: float
    snakemake: str
    command: str
    notes: list[str]
    rules: list[RuleStatus]
    runs: list[RunStatus]
    running: list[JobStatus]
    waiting: list[WaitingStatus]
    failed: list[JobStatus]
    judges: list[JudgeStatus]
    hours: HoursStatus

    @property
    def ended(self) -> bool:
        """Nothing is left to be made, or nobody makes it any more and nothing runs."""
        open_ = any(rule.running or (rule.pending and self.snakemake != "not running") for rule in self.rules)
        return self.snakemake != "running" and not open_

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
