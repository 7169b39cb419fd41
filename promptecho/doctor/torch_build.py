"""Whether torch is here, can be imported, and is built for GPUs where jobs take one."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator

from promptecho.config.job_sizes import takes_gpu
from promptecho.doctor.finding import Finding, fine, problem, unchecked, warning
from promptecho.doctor.preflight import JOBS, Preflight
from promptecho.errors import bug_line

BUILD = 'install torch for these GPUs (README, "torch for your GPUs")'


def torch_build(preflight: Preflight) -> Iterator[Finding]:
    """torch of the Python that runs Snakemake, which jobs use where they have no environments of their own."""
    needing = [stage for stage in JOBS if preflight.names(stage)]
    if not needing:
        return
    when = JOBS[needing[0]]
    profile = preflight.profile
    if preflight.envs is not None:
        told = f"torch: jobs use that of the environments in {preflight.envs}"
        fix = (
            f"--probe asks it on the nodes; here, {preflight.envs}/NAME/bin/python -c 'import torch; "
            "print(torch.version.cuda)' tells what it is built for"
        )
        yield unchecked(told, when, fix)
        return
    if profile is not None and profile.images:
        yield unchecked("torch: jobs use that of their image", when, "ask the image: apptainer exec --nv")
        return
    if profile is not None and profile.conda:
        yield unchecked("torch: jobs use that of their conda environments", when, "ask it in .snakemake/conda")
        return
    if importlib.util.find_spec("torch") is None:
        told = f"torch is not installed in {sys.prefix}; every stage computes with it"
        yield problem(told, when, 'make setup; for GPUs see README, "torch for your GPUs"')
        return
    try:
        import torch
    except (ImportError, OSError) as error:  # a library that its build needs
        yield problem(f"torch in {sys.prefix} can't be imported: {bug_line(error)}", when, BUILD)
        return
    built = torch.version.cuda or torch.version.hip
    first = next((s for s in needing if any(takes_gpu(preflight.config, s, n) for n in preflight.names(s))), None)
    if first is not None and built is None:
        told = f"torch {torch.__version__} in {sys.prefix} is built for processors alone, and jobs take GPUs"
        on_slurm = profile is not None and profile.on_slurm
        tell = problem if on_slurm else warning  # here, GPUs may be missing altogether, which `local_gpus` tells
        yield tell(told, f"{JOBS[first]}: no GPU is found", BUILD)
        return
    yield fine(f"torch {torch.__version__}, built for {f'CUDA {built}' if built else 'processors'}")
