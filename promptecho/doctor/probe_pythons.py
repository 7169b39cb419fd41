"""Which Pythons of a node a probe asks: those that run the jobs that go there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from promptecho.config.job_sizes import Stage, takes_gpu
from promptecho.doctor.cluster import JobNeeds
from promptecho.doctor.finding import Finding, problem
from promptecho.doctor.packages import entered, environment_key, environments
from promptecho.doctor.preflight import Preflight
from promptecho.errors import DataError

COMPUTING: tuple[Stage, ...] = ("caption", "train", "generate")
"""Stages that compute with torch whatever the models are, and so on the GPUs that their jobs get."""


@dataclass
class ProbedPython:
    """A Python that is asked on a node: `on_gpus`: whether jobs that it runs use some; `environments`: the files whose
    packages it is to have, by the names of what needs them."""

    python: str
    on_gpus: bool = False
    environments: dict[str, str] = field(default_factory=dict)


def pythons_of(
    preflight: Preflight, jobs: Sequence[tuple[Stage, str, JobNeeds]]
) -> tuple[list[ProbedPython], list[Finding]]:
    """The Pythons of jobs, those with most GPUs first, and the environments that none can be started in. Without
    environments of their own (`envs`), all jobs use this one; conda's and those of images Snakemake alone enters, so
    that this one is asked for GPUs there, and nobody for packages."""
    profile, known = preflight.profile, environments(preflight)
    deployed = profile is not None and (profile.conda or profile.images)
    found = {sys.executable: ProbedPython(sys.executable)} if preflight.envs is None else {}
    lacking: dict[str, Finding] = {}
    for stage, name, needs in sorted(jobs, key=lambda job: (job[2].gpus, job[2].nodes), reverse=True):
        key = environment_key(preflight, stage, name)
        if key not in known:  # of a judge that is not to be asked
            continue
        file, when = known[key]
        python = sys.executable
        if preflight.envs is not None:
            try:
                python = str(entered(preflight.envs, file).absolute() / "python")
            except DataError as error:
                what, _, fix = str(error).rpartition("; ")
                lacking.setdefault(what, problem(what, when, fix))
                continue
        one = found.setdefault(python, ProbedPython(python))
        # Environments of scores and judges may have no torch, although the profile gives them a GPU.
        one.on_gpus |= needs.gpus > 0 and (stage in COMPUTING or takes_gpu(preflight.config, stage, name))
        if file.is_file() and not deployed:
            one.environments[key] = str(file.resolve())
    return list(found.values()), list(lacking.values())
