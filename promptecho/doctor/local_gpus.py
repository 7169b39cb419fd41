"""Whether the machine on which jobs run has the GPUs that real models need, where that is this one."""

from __future__ import annotations

import os
from collections.abc import Iterator

from promptecho.cluster.gpus import detect, visible
from promptecho.config.job_sizes import takes_gpu
from promptecho.doctor.finding import Finding, fine, unchecked, warning
from promptecho.doctor.preflight import JOBS, Preflight
from promptecho.errors import PromptEchoError


def local_gpus(preflight: Preflight) -> Iterator[Finding]:
    """GPUs of this machine; those of a cluster are asked for in `cluster`."""
    if preflight.profile is not None and preflight.profile.on_slurm:
        return
    needing = list(_needing(preflight))
    if not needing:
        yield fine("no stage takes a GPU")
        return
    when = needing[0]
    if preflight.profile is None:
        told = "no profile is named, so that it is not known where jobs run: partitions, time limits and GPUs"
        yield unchecked(told, when, "name it: --profile profiles/slurm or profiles/local")
        return
    try:
        found = visible(os.environ, detect())
    except PromptEchoError as error:
        yield unchecked(f"GPUs of this machine: {error}", when, "look again when it answers")
        return
    if found:
        yield fine(f"{len(found)} GPU(s) here")
    else:
        told = f"{preflight.profile.path}: jobs run on this machine, which has no NVIDIA GPU that they may use"
        yield warning(told, f"{when}: real models compute on processors, for months", "run it where GPUs are")


def _needing(preflight: Preflight) -> Iterator[str]:
    """Jobs that take a GPU."""
    for stage in JOBS:
        if any(takes_gpu(preflight.config, stage, name) for name in preflight.names(stage)):
            yield JOBS[stage]
