"""A stage that a rehearsal tried."""

from __future__ import annotations

from dataclasses import dataclass, field

from promptecho.config.job_sizes import Stage
from promptecho.doctor.finding import Finding, fine, problem, unchecked
from promptecho.doctor.preflight import JOBS


@dataclass
class RehearsedStage:
    """A stage that was tried: seconds of its processes, of training also those of its phases alone (`at_work`), and the
    peak of memory in GB, of a GPU (`on_gpu`) or of the process. `plan_*`: what the plan has for the same work.

    `problem`: what failed; `skipped`: why it was not tried; `note`: what else is to be known.
    """

    name: str
    stage: Stage
    seconds: float | None = None
    at_work: float | None = None
    memory_gb: float | None = None
    on_gpu: bool = False
    plan_seconds: float | None = None
    plan_gb: float | None = None
    problem: str = ""
    skipped: str = ""
    fix: str = ""
    note: str = ""
    sets: list[str] = field(default_factory=list)  # of images, where it makes some

    @property
    def outcome(self) -> str:
        return "failed" if self.problem else "not tried" if self.skipped else "ok"

    def finding(self) -> Finding:
        """What the preflight says of it."""
        if self.problem:
            return problem(f"rehearsal: {self.name}: {self.problem}", JOBS[self.stage], self.fix)
        if self.skipped:
            return unchecked(f"rehearsal: {self.name}: not tried: {self.skipped}", JOBS[self.stage], self.fix)
        return fine(f"{self.name} ran{f'; {self.note}' if self.note else ''}")
