"""How a rehearsal starts a command of a stage: as the stage's jobs do, in the stage's environment, on GPUs that no
other job of this machine has, and without any where the jobs see none."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from promptecho.bench.suite import here
from promptecho.cluster.gpus import VISIBLE
from promptecho.config.job_sizes import Stage, takes_gpu
from promptecho.doctor.cluster import RULES, needs_of
from promptecho.doctor.finding import Finding, unchecked
from promptecho.doctor.packages import entered, environment_key, environments
from promptecho.doctor.preflight import Preflight

LIGHT = {("shapes", "render"), ("caption", "prompts"), ("caption", "merge"), ("adapter", "import")}  # take no GPU
SOCKETS = 70  # bytes of a folder in which a socket (108 bytes at most, its folder's name included) may have a name


@dataclass(frozen=True)
class StageLaunch:
    """`words` are all that stands before `-m MODULE`; `environment` is what its process has beside this one's."""

    words: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, module: str, arguments: Sequence[str]) -> list[str]:
        return [*self.words, "-m", module, *arguments]

    def script(self, arguments: Sequence[str]) -> str:
        """What runs `promptecho ARGUMENTS` again, from the current folder."""
        given = {name: value for name, value in self.environment.items() if name != "TMPDIR"}
        exported = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in given.items())
        return f"cd {shlex.quote(os.getcwd())}\n{exported}{shlex.join(self.command('promptecho', arguments))}\n"


def deployed_refusal(preflight: Preflight) -> Finding | None:
    """Why nothing is rehearsed where jobs run in environments of conda or in images; None where they do not."""
    profile = preflight.profile
    if profile is None or not (profile.conda or profile.images):
        return None
    method = "conda" if profile.conda else "apptainer"
    told = f"--rehearse: {profile.path}: {method}: Snakemake alone enters what the stages run in"
    how = "rehearse with environments of the site's key envs (promptecho envs build), or with a profile without that"
    return unchecked(told, "all jobs", how)


def launch(
    preflight: Preflight, folder: Path, words: Sequence[str], stage: Stage, name: str = "", gpus: int = 0
) -> StageLaunch:
    """How the command `promptecho WORDS` of a stage is started.

    Args:
        folder: of the rehearsal, where temporary files go.
        name: of the run where the stage is `train`, of the benchmark where it is `judge` or `score`.
        gpus: that it gets where the stage's jobs get one, else it sees none; 0: this machine has none. In a job of
            Slurm it sees what that job has, but for those whose own jobs Slurm would give none.

    Raises:
        DataError: the stage's environment is missing, damaged or out of date; the message ends with the fix.
    """
    light = tuple(words[:2]) in LIGHT
    environment = {"PYTHONPATH": here()["PYTHONPATH"]}
    if len(os.fsencode(folder.absolute())) <= SOCKETS:
        environment["TMPDIR"] = str(folder.absolute())
    python = sys.executable
    if preflight.envs is not None:
        bin_ = entered(preflight.envs, _file(preflight, words, stage, name))
        environment["PATH"] = os.pathsep.join([str(bin_), *filter(None, [os.environ.get("PATH")])])
        python = str(bin_ / "python")
    launcher: list[str] = []
    profile, in_job = preflight.profile, "SLURM_JOB_ID" in os.environ
    given_out = not in_job or profile is not None and profile.on_slurm  # jobs on this job's node share what it has
    if gpus and not light and given_out and not gets_gpu(preflight, stage, name):
        environment[VISIBLE] = ""  # all are this job's, where Slurm has given them to the rehearsal
    elif gpus and not light and not in_job:  # Slurm gives its jobs theirs
        launcher = [python, "-m", "promptecho", "gpus", "run", "--count", str(gpus), "--"]
    return StageLaunch((*launcher, python), environment)


def gets_gpu(preflight: Preflight, stage: Stage, name: str = "") -> bool:
    """Whether the stage's jobs get a GPU: as the profile or the experiment says, else where their work takes one;
    `name` as for `takes_gpu`."""
    profile = preflight.profile
    if profile is not None and profile.on_slurm:
        return needs_of(preflight, stage, name).gpus > 0
    said = None if profile is None else profile.rules.get(RULES[stage], {}).get("gpu")
    return said > 0 if isinstance(said, int) else takes_gpu(preflight.config, stage, name)


def _file(preflight: Preflight, words: Sequence[str], stage: Stage, name: str) -> Path:
    """The environment's file, as the workflow's rule of that command names it."""
    if words[0] == "shapes":
        return preflight.environments / "score.yaml"
    return environments(preflight)[environment_key(preflight, stage, name)][0]
