"""Whether what runs each stage has the packages that the stage's environment lists."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from promptecho.config.job_sizes import Stage
from promptecho.config.judge_kinds import judge_kind
from promptecho.config.scorers import backend_of
from promptecho.doctor.finding import Finding, fine, problem, unchecked, warning
from promptecho.doctor.preflight import JOBS, Preflight
from promptecho.envs.built import look_at
from promptecho.envs.installed import compare
from promptecho.envs.spec import read_spec
from promptecho.errors import DataError

EXECUTORS = {"submitit": "snakemake_executor_plugin_submitit", "slurm": "snakemake_executor_plugin_slurm"}


def packages(preflight: Preflight) -> Iterator[Finding]:
    """What each stage imports. Without environments of their own or an image, jobs use Snakemake's Python, this one."""
    profile = preflight.profile
    module = EXECUTORS.get(profile.executor) if profile is not None else None
    if profile is not None and module is not None and importlib.util.find_spec(module) is None:
        name = module.replace("_", "-")
        where = "plugins/" if profile.executor == "submitit" else ""
        yield problem(
            f"{profile.path}: executor {profile.executor}: the package {name} is not installed",
            "the start of Snakemake", f"pip install {where}{name}",
        )  # fmt: skip
    if preflight.envs is not None:  # first: it tells of conda and images besides
        yield from _built(preflight, preflight.envs)
        return
    if profile is not None and profile.conda:
        yield from _conda(preflight)
        return
    if profile is not None and profile.images:
        told = f"the packages of the stages: {profile.path} has jobs run in an image, which is not looked into"
        yield unchecked(told, "all jobs", "envs/apptainer.def lists what an image needs (docs/environments.md)")
        return
    for name, (file, when) in environments(preflight).items():
        if not file.is_file():
            told = f"{name}: the list of its packages, {file}, is not here"
            yield unchecked(told, when, "start in the checkout, or import the packages by hand")
            continue
        absent, other = compare(file)
        if absent:
            yield problem(
                f"{name}: not installed: {', '.join(absent)} ({file.name} lists them)", when,
                f"make the stages' own environments: promptecho envs build {file.stem} --into FOLDER, or with conda "
                "--software-deployment-method conda (docs/environments.md); or, where the versions go together with "
                f"those of the other stages, pip install {' '.join(absent)}",
            )  # fmt: skip
        if other:
            yield warning(
                f"{name}: other versions than {file.name} lists: {', '.join(other)}", when,
                "nobody has tried these together; make setup installs the listed ones, except those of mplug.yaml",
            )  # fmt: skip
        if not absent and not other:
            yield fine(f"{name}: every package of {file.name} is installed")


def environments(preflight: Preflight) -> dict[str, tuple[Path, str]]:
    """What needs an environment -> (its file, the jobs that use it)."""
    found: dict[str, tuple[Path, str]] = {}
    stages: tuple[Stage, ...] = ("caption", "train", "generate")
    for stage in stages:
        if stage in preflight.stages:
            found[environment_key(preflight, stage)] = (preflight.environments / f"{stage}.yaml", JOBS[stage])
    if "guard" in preflight.stages:
        file = preflight.environments / "caption.yaml"  # of the rule guard, too
        found.setdefault(environment_key(preflight, "guard"), (file, JOBS["guard"]))
    for name, section in preflight.benchmarks.items():
        environment = backend_of(section).environment
        stage = "score"
        if section.judge is not None:
            environment = judge_kind(preflight.config.judges.models[section.judge].kind).environment
            stage = "judge"
        if stage not in preflight.stages:
            continue
        file = environment if isinstance(environment, Path) else preflight.environments / f"{environment}.yaml"
        found[environment_key(preflight, stage, name)] = (file, f"{JOBS[stage]} of {name}")
    return found


def environment_key(preflight: Preflight, stage: Stage, name: str = "") -> str:
    """What `environments` calls that of a stage's jobs; `name`: of the benchmark where the stage is `judge` or
    `score`."""
    if stage in ("judge", "score"):
        return f"benchmarks.{name}, backend {preflight.benchmarks[name].backend}"
    return "stage caption" if stage == "guard" else f"stage {stage}"


def entered(envs: Path, file: Path) -> Path:
    """The folder of the programs of an environment in `envs`. The environment's own, not the link's: that may lead to a
    newer one meanwhile.

    Raises:
        DataError: the environment is missing, damaged or out of date; the message ends with the fix.
    """
    try:
        standing = look_at(envs, read_spec(file))
    except DataError as error:
        raise DataError(f"{error}; mend that file") from None
    if standing.state != "current":
        raise DataError(standing.line)
    return Path(os.path.realpath(envs / standing.spec.name), "bin")


def _built(preflight: Preflight, folder: Path) -> Iterator[Finding]:
    """The environments that `promptecho envs build` has made."""
    when = "the start of Snakemake, which looks at the environments of its jobs"
    profile = preflight.profile
    if profile is not None and (profile.conda or profile.images):
        method = "conda" if profile.conda else "apptainer"
        yield problem(
            f"config/config.yaml: envs, and {profile.path}: software-deployment-method: {method}", when,
            "keep one of the two: both say which environments the jobs use",
        )  # fmt: skip
        return
    files = {file: name for name, (file, _) in environments(preflight).items()}
    if preflight.benchmarks:
        files.setdefault(preflight.environments / "score.yaml", "prompts and scores")
        files.setdefault(preflight.environments / "tables.yaml", "tables and figures")
    for file, name in files.items():
        try:
            standing = look_at(folder, read_spec(file))
        except DataError as error:
            yield problem(f"{name}: {error}", when, "mend that file")
            continue
        if standing.state == "current":
            yield fine(f"{name}: the environment {standing.spec.name} in {folder} is current")
        else:
            what, _, fix = standing.line.rpartition("; ")
            yield problem(f"{name}: {what}", when, fix)


def _conda(preflight: Preflight) -> Iterator[Finding]:
    assert preflight.profile is not None, "it asks for conda"
    if shutil.which("conda") is None:
        yield problem(
            f"{preflight.profile.path}: software-deployment-method: conda, and there is no conda on PATH",
            "the start of Snakemake, which builds the environments",
            "put conda 24.7 or newer on PATH, or remove the line: jobs then use the Python that runs Snakemake",
        )
        return
    yield unchecked(
        "the packages of the stages: Snakemake builds their conda environments when it starts",
        "the start of Snakemake", "build them before: snakemake --profile ... --conda-create-envs-only",
    )  # fmt: skip
