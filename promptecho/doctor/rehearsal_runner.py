"""How a rehearsal runs the commands of a stage: a process each, with its log, what it took, and a script that runs it
again."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptecho.bench.runner import Step, run_steps
from promptecho.doctor.preflight import Preflight
from promptecho.doctor.rehearsal_command import launch
from promptecho.doctor.rehearsed_stage import RehearsedStage
from promptecho.errors import DataError
from promptecho.files import write_text

WAITING = "promptecho: waiting for "  # as `promptecho gpus run` says it


@dataclass(frozen=True)
class StageRunner:
    """Runs in `folder`; `minutes`: after which a command is ended; `on_gpu`: whether this machine has a GPU that may be
    used."""

    preflight: Preflight
    folder: Path
    minutes: float
    on_gpu: bool

    def run(
        self, stage: RehearsedStage, commands: Iterable[Sequence[Any]], name: str = "", gpus: int = 1
    ) -> RehearsedStage:
        """Run a stage's commands, in a process each, and note what they took.

        Args:
            name: of the run or the benchmark, as for `takes_gpu`.
            gpus: that they get where this machine has some.
        """
        stage.seconds, extra = 0.0, ["--allow-plugins"] if self.preflight.config.plugins else []
        rows: list[dict[str, Any]] = []
        for number, words in enumerate(commands):
            arguments = [*map(str, words), *extra]
            try:
                how = launch(self.preflight, self.folder, arguments, stage.stage, name, gpus if self.on_gpu else 0)
            except DataError as error:  # of the stage's environment
                stage.problem, _, stage.fix = str(error).rpartition("; ")
                break
            label = _file_name(stage, number)
            script = make_folder(self.folder / "again") / f"{label}.sh"
            write_text(script, how.script(arguments))
            command = how.command("promptecho.doctor.measured", arguments)
            step = Step(label, command, 0, 60 * self.minutes, environment=how.environment)
            out = make_folder(self.folder / "logs") / f"{step.name}.json"
            done = run_steps([step], {}, out, self.minutes, _told)
            if done["interrupted"]:
                raise KeyboardInterrupt
            stage.seconds += done["seconds"]
            rows += done["rows"]
            if failed := next((row[key] for row in rows for key in ("failed", "absent") if key in row), None):
                if waited := self._waited(stage, number):
                    stage.skipped, stage.fix = waited, "rehearse again when GPUs are free (promptecho gpus)"
                else:
                    stage.problem = failed
                    stage.fix = f"see to what it says; bash {script} runs it again"
                break
        on_gpu = [row["gpu_gb"] for row in rows if row.get("gpu_gb") is not None]
        stage.on_gpu = bool(on_gpu)
        stage.memory_gb = max(on_gpu or [row["host_gb"] for row in rows if "host_gb" in row], default=None)
        return stage

    def log(self, stage: RehearsedStage, number: int) -> Path:
        """Of one of its commands."""
        name = _file_name(stage, number)
        return self.folder / "logs" / f"{name}.json.logs" / f"{name}.log"

    def _waited(self, stage: RehearsedStage, number: int) -> str:
        """Which GPUs it was still waiting for when it ended, and who has them; empty where it was at work."""
        log = self.log(stage, number)
        if log.with_suffix(".jsonl").exists():
            return ""  # it had them: `measured` makes this file first
        with contextlib.suppress(OSError):
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            if lines and lines[-1].startswith(WAITING):
                return lines[-1].removeprefix("promptecho: ")
        return ""


def make_folder(folder: Path) -> Path:
    """The folder, which is there from now on."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _file_name(stage: RehearsedStage, number: int) -> str:
    """Of what belongs to one of its commands."""
    return f"{stage.name}-{number + 1}".replace(" ", "_")


def _told(text: str) -> None:
    """What `run_steps` says, without the budget of its own."""
    print(f"rehearsal: {text.partition(' (')[0]}", file=sys.stderr, flush=True)
