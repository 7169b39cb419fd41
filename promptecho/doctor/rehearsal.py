"""`doctor --rehearse`: captions, training, images, judges and scores once, by their own commands, on the real models:
one prompt, two images, one iteration. Guards are not rehearsed.

All is written to a folder of its own. A stage that fails is a problem with its last word and the command that runs it
again, and the others are tried all the same: training then takes a made-up prompt, images the base model.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from promptecho.cluster.gpus import detect, visible
from promptecho.config.job_sizes import Stage, takes_gpu
from promptecho.doctor.batch import leaving_cleanly
from promptecho.doctor.finding import Finding, unchecked
from promptecho.doctor.preflight import JOBS, Preflight
from promptecho.doctor.rehearsal_command import deployed_refusal
from promptecho.doctor.rehearsal_plan import add_plan
from promptecho.doctor.rehearsal_stages import WITH_GPUS, Stages
from promptecho.doctor.rehearsed_stage import RehearsedStage
from promptecho.errors import PromptEchoError, bug_line

MINUTES = 30.0  # of a stage, model loading included


@dataclass
class Rehearsal:
    """What came of it. `folder` is where all was written."""

    folder: str
    stages: list[RehearsedStage] = field(default_factory=list)
    gpu: str = ""  # the kind that the plan is for; "": there is no plan
    refused: Finding | None = None  # in place of all that was not tried

    def findings(self) -> Iterator[Finding]:
        """What the preflight says of it."""
        if self.refused is not None:
            yield self.refused
        yield from (one.finding() for one in self.stages)

    @property
    def passed(self) -> bool:
        """Whether every stage was tried and ran."""
        return self.refused is None and all(one.outcome == "ok" for one in self.stages)

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        stages = [asdict(one) | {"outcome": one.outcome} for one in self.stages]
        return {"folder": self.folder, "plan_gpu": self.gpu, "stages": stages}


def refusal(preflight: Preflight) -> Finding | None:
    """Why nothing can be rehearsed here; None where it can.

    Raises:
        ConfigError: CUDA_VISIBLE_DEVICES names a GPU that is not there.
        ModelError: nvidia-smi does not answer.
    """
    if (deployed := deployed_refusal(preflight)) is not None:
        return deployed
    chain: tuple[Stage, ...] = ("caption", "train", "generate")
    needing = next((s for s in chain if any(takes_gpu(preflight.config, s, n) for n in preflight.names(s))), None)
    if needing is None or visible(os.environ, detect()):
        return None
    told = "--rehearse: the experiment's models take a GPU, and there is none on this machine that may be used"
    return unchecked(told, JOBS[needing], WITH_GPUS)


def rehearse(
    preflight: Preflight, folder: Path, *, paid: bool = False, minutes: float = MINUTES, gpu: str | None = None
) -> Rehearsal:
    """Rehearse all stages of an experiment in `folder`, which is there and stays.

    Args:
        paid: ask judges behind endpoints about the images; else they get the one call that costs nothing.
        minutes: after which a command is ended.
        gpu: kind of GPU that the plan beside it is for; None: no plan.
    """
    rehearsal = Rehearsal(folder=str(folder))
    try:
        if (refused := refusal(preflight)) is not None:
            rehearsal.refused = refused
            return rehearsal
        stages = Stages(preflight, folder, minutes, paid)
    except Exception as error:  # a bug here must not hide what the checks find
        rehearsal.refused = stopped("can't begin", error)
        return rehearsal
    try:
        for stage in stages.all():
            rehearsal.stages.append(stage)
    except Exception as error:  # such as a full disk
        after = f" after {rehearsal.stages[-1].name}" if rehearsal.stages else ""
        rehearsal.refused = stopped(f"stopped{after}", error)
    if gpu is not None:
        rehearsal.gpu = add_plan(preflight, stages.runs, rehearsal.stages, gpu)
    return rehearsal


def stopped(how: str, error: Exception) -> Finding:
    """What an error that is no stage's own left untried."""
    told = str(error) if isinstance(error, (PromptEchoError, OSError)) else bug_line(error)
    return unchecked(f"--rehearse: {how}: {told}", "all jobs", "see to this, then rehearse again")


def rehearse_and_clean(preflight: Preflight, keep: bool, **options: Any) -> Rehearsal:
    """`rehearse` in a temporary folder, which is told, and removed again but where a stage failed or `keep` says so."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="promptecho-rehearsal-"))
    except OSError as error:
        return Rehearsal("", refused=stopped("there is no place for its folder", error))
    print(f"rehearsal: in {folder}", file=sys.stderr, flush=True)
    needless = False
    with leaving_cleanly():
        try:
            rehearsal = rehearse(preflight, folder, **options)
            needless = not any(stage.problem for stage in rehearsal.stages)
            return rehearsal
        except (KeyboardInterrupt, SystemExit):
            needless = True
            raise
        finally:
            if needless and not keep:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                print(f"rehearsal: kept: {folder}", file=sys.stderr, flush=True)
