"""What a dry run of Snakemake says of an experiment's problems: a line each, in a part of a second.

Nobody is asked over the network, no image is opened, and only the stages are looked at whose jobs would run.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from promptecho.config import ExperimentConfig
from promptecho.config.job_sizes import Stage
from promptecho.doctor.backends import backends
from promptecho.doctor.diagnosis import run_checks
from promptecho.doctor.finding import PreflightCheck
from promptecho.doctor.judges import judge_keys
from promptecho.doctor.models import models
from promptecho.doctor.packages import packages
from promptecho.doctor.preflight import preflight_of

CHECKS: dict[str, PreflightCheck] = {
    "models": models,
    "packages": packages,
    "backends": backends,
    "judges' keys": judge_keys,
}
ALSO_WARNINGS = {"backends"}


def short_lines(
    config: ExperimentConfig,
    source: Path,
    stages: Collection[Stage],
    benchmarks: Collection[str],
    conda: bool,
    envs: Path | None = None,
) -> list[str]:
    """Lines about what would stop the jobs of some stages and benchmarks of an experiment, or is not known to run; none
    where all is well.

    Args:
        source: the experiment's file, for the last line.
        conda: stages have environments of their own or images, which nobody can look into from here.
        envs: the folder of those that `promptecho envs build` has made, where the workflow uses them.
    """
    whole = preflight_of(config, source, None, None)
    chosen = {name: section for name, section in whole.benchmarks.items() if name in benchmarks}
    preflight = replace(whole, stages=frozenset(stages), benchmarks=chosen, network=False, envs=envs)
    checks = {name: check for name, check in CHECKS.items() if not (conda and name == "packages")}
    lines = [
        f"{config.experiment}: {one.line}"
        for checked in run_checks(preflight, checks)
        for one in checked.findings
        if one.severity == "problem" or (one.severity == "warning" and checked.name in ALSO_WARNINGS)
    ]
    return [*lines, f"{config.experiment}: more by promptecho doctor --config {source}"] if lines else []
