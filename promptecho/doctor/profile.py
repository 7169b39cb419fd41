"""What a profile of Snakemake says about where and how jobs run, read by Snakemake's own code."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptecho.doctor.profile_values import Mistake, ProfileValues
from promptecho.errors import ConfigError, bug_line


@dataclass(frozen=True)
class WorkflowProfile:
    """A profile: `default` resources of all jobs, those of single `rules`, and `threads` of rules.

    `conda`, `images`: jobs run in environments that conda makes, or in images of containers (Apptainer). `computed`:
    values that depend on a job's inputs or wildcards, by their dotted names; they are in none of the three.
    `mistakes`: what can't be read, which Snakemake will refuse or take for something else.
    """

    path: Path
    executor: str = "local"
    conda: bool = False
    images: bool = False
    default: Mapping[str, Any] = field(default_factory=dict)
    rules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    threads: Mapping[str, int] = field(default_factory=dict)
    logs: Path | None = None
    computed: Sequence[str] = ()
    mistakes: Sequence[Mistake] = ()

    @property
    def on_slurm(self) -> bool:
        return self.executor in ("submitit", "slurm")

    def resources(self, rule: str) -> dict[str, Any]:
        """What the profile says of a rule's jobs, the general defaults included."""
        return {**self.default, **self.rules.get(rule, {})}


def read_profile(path: Path) -> WorkflowProfile:
    """Read a profile's folder, its file, or the profile of that name where Snakemake looks for profiles.

    Raises:
        ConfigError: there is none, or Snakemake itself is not installed here.
    """
    try:
        from snakemake.cli import get_profile_dir
    except ImportError as error:
        told = f"--profile {path}: Snakemake, which reads it, can't be imported by this Python ({error})"
        raise ConfigError(f"{told}; type this where you start Snakemake") from None
    found = get_profile_dir(str(path))
    if found is None:
        raise ConfigError(f"--profile {path}: has no config.yaml; name the folder, such as profiles/slurm")
    file = found[1]
    mistakes: list[Mistake] = []
    raw = _raw(file, mistakes)
    values = ProfileValues(file, mistakes)
    default = values.resources("default-resources", raw.get("default-resources"))
    rules = values.resources("set-resources", raw.get("set-resources"))
    threads = values.threads(raw.get("set-threads"))
    methods = _methods(file, raw, mistakes)
    return WorkflowProfile(
        file, str(raw.get("executor") or "local"), "conda" in methods, "apptainer" in methods,
        default.get("", {}), rules, threads, _place(raw.get("submitit-logdir")), values.computed, mistakes,
    )  # fmt: skip


def _raw(file: Path, mistakes: list[Mistake]) -> Mapping[str, Any]:
    """The profile's keys, as Snakemake reads them."""
    import yte  # a requirement of Snakemake's

    try:
        with file.open(encoding="utf-8") as stream:
            raw = yte.process_yaml(stream, require_use_yte=True)
    except Exception as error:
        mistakes.append((f"{file}: is no YAML: {bug_line(error)}", "correct it; nothing of it was read"))
        return {}
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        mistakes.append((f"{file}: is no mapping", "write lines of KEY: VALUE; nothing of it was read"))
        return {}
    return raw


def _methods(file: Path, raw: Mapping[str, Any], mistakes: list[Mistake]) -> set[str]:
    """How Snakemake is to deploy software."""
    methods = raw.get("software-deployment-method") or raw.get("sdm") or []
    words = methods.split() if isinstance(methods, str) else methods
    if not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
        told = f"{file}: software-deployment-method: {methods!r} names no method"
        mistakes.append((told, "write software-deployment-method: conda, or remove the line"))
        return set()
    older = {"use-conda": "conda", "use-apptainer": "apptainer", "use-singularity": "apptainer"}
    return {*words, *(method for key, method in older.items() if raw.get(key) is True)}


def _place(value: Any) -> Path | None:
    """A folder's name, as Snakemake reads it."""
    return Path(os.path.expanduser(os.path.expandvars(str(value)))) if value else None
