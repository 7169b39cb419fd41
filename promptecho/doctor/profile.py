"""What a profile of Snakemake says about where and how jobs run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptecho.config import read_yaml
from promptecho.errors import ConfigError

TEXT = re.compile(r"(?!attempt\b|input\b|threads\b|wildcards\b)[A-Za-z][\w.:,/-]*")
NAMES = ("config.v9+.yaml", "config.v8+.yaml", "config.yaml")


@dataclass(frozen=True)
class WorkflowProfile:
    """A profile: `default` resources of all jobs, those of single `rules`, and `threads` of rules. Values that are no
    plain number or text (Snakemake computes them) are left out."""

    path: Path
    executor: str = "local"
    conda: bool = False
    default: Mapping[str, Any] = field(default_factory=dict)
    rules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    threads: Mapping[str, int] = field(default_factory=dict)
    logs: Path | None = None

    @property
    def on_slurm(self) -> bool:
        return self.executor in ("submitit", "slurm")

    def resources(self, rule: str) -> dict[str, Any]:
        """What the profile says of a rule's jobs, the general defaults included."""
        return {**self.default, **self.rules.get(rule, {})}


def read_profile(path: Path) -> WorkflowProfile:
    """Read a profile's folder, or its file.

    Raises:
        ConfigError: there is none, or it is no YAML.
    """
    places = [path] if path.is_file() else [path / name for name in NAMES]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise ConfigError(f"--profile {path}: has no config.yaml; name the folder, such as profiles/slurm")
    raw = read_yaml(file)
    methods = raw.get("software-deployment-method") or raw.get("sdm") or []
    methods = methods.split() if isinstance(methods, str) else methods
    rules: dict[str, dict[str, Any]] = {}
    for rule, key, value in _of_rules(raw.get("set-resources")):
        rules.setdefault(rule, {})[key] = value
    threads = {rule: value for rule, value in _pairs(raw.get("set-threads")) if isinstance(value, int)}
    logs = raw.get("submitit-logdir")
    return WorkflowProfile(
        file, str(raw.get("executor") or "local"), "conda" in methods, dict(_pairs(raw.get("default-resources"))),
        rules, threads, Path(str(logs)) if logs else None,
    )  # fmt: skip


def _of_rules(value: Any) -> Iterator[tuple[str, str, Any]]:
    """(rule, resource, value) of `set-resources`, as a mapping or as a list of RULE:NAME=VALUE."""
    if isinstance(value, Mapping):
        for rule, some in value.items():
            yield from ((str(rule), key, one) for key, one in _pairs(some))
        return
    for key, one in _pairs(value):
        rule, colon, name = key.partition(":")
        if colon:
            yield rule, name, one


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    """(name, value) of a mapping, or of a list of NAME=VALUE."""
    if isinstance(value, Mapping):
        items = [(str(key), one) for key, one in value.items()]
    else:
        words = value.split() if isinstance(value, str) else value or []
        items = [(name, one) for name, equals, one in (str(word).partition("=") for word in words) if equals]
    for key, one in items:
        try:
            yield key, ast.literal_eval(one) if isinstance(one, str) else one
        except (ValueError, SyntaxError):
            if TEXT.fullmatch(one):  # without quotation marks of its own; the others are expressions
                yield key, one
