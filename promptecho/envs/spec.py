"""What an environment holds: a file of `envs/`, as conda reads it, too."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from promptecho.errors import DataError
from promptecho.shipped import PACKAGE
from promptecho.suggest import maybe

ENVS = PACKAGE.parent / "envs"
APART = ("mplug", "workflow")  # built only when named: few need the one, and the other runs Snakemake itself
_PYTHON = re.compile(r"python *=+ *(\d+\.\d+)[\d.*]*")
# What a build of torch brings for its GPUs is that build's own matter.
_OF_TORCH = re.compile(r"(nvidia|cuda)-|triton==")
_PIN = re.compile(r"([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?(?:==([\w.!+-]+))?")  # not `1.*`, nor one with a marker


@dataclass(frozen=True)
class EnvSpec:
    """An environment that can be built: `packages` are requirements as pip reads them, `constraints` exact versions
    (`name==version`) of what these need in turn."""

    name: str
    file: Path
    python: str
    packages: tuple[str, ...]
    constraints: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Changes with anything that decides what is installed, not with a comment."""
        held = [self.python, sorted(self.packages), sorted(self.constraints)]
        return hashlib.sha256(json.dumps(held).encode()).hexdigest()[:12]

    @property
    def lock(self) -> Path:
        """Where the hashes of all its files stand, for Linux x86-64."""
        return self.file.with_name(f"{self.name}.linux-64.lock.txt")

    @property
    def lock_digest(self) -> str:
        """Changes with any file that the lock names, not with a comment.

        Raises:
            DataError: there is no lock file.
        """
        lines = sorted(line.strip() for line in self._lock_text().splitlines() if not line.startswith("#"))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]

    @property
    def locked(self) -> tuple[str, ...]:
        """`name==version` of everything in the lock.

        Raises:
            DataError: there is no lock file.
        """
        return _versions(self._lock_text())

    def differing(self, packages: Iterable[str], constrained: bool = False) -> list[str]:
        """In words, where `packages` (`name==version`) are not what the file pins; with `constrained`, also those of
        another version than the constraints say."""
        here = {_plain(name): version for name, _, version in (one.partition("==") for one in packages)}
        found = []
        for pin in (*self.packages, *(self.constraints if constrained else ())):
            if (held := _PIN.fullmatch(pin)) is None:
                continue
            name, version = held.groups()
            if _plain(name) not in here:
                found += [f"no {name}"] if pin in self.packages else []
            elif version and _release(here[_plain(name)]) != _release(version):
                found.append(f"{name} {here[_plain(name)]} instead of {version}")
        return found

    def _lock_text(self) -> str:
        if not self.lock.is_file():
            raise DataError(f"environment {self.name}: {self.lock} is not there; leave --exact out, or write it")
        return self.lock.read_text(encoding="utf-8")

    @property
    def argument(self) -> str:
        """How a command names it: by its name, or a file from outside by its path."""
        return self.name if _is_ours(self.file) else str(self.file)


def read_spec(file: Path) -> EnvSpec:
    """Read an environment file.

    Raises:
        DataError: it is missing, or holds what a virtual environment can't have.
    """
    name = file.stem
    if not _is_ours(file) and (ENVS / f"{name}.yaml").is_file():
        raise DataError(f"{file}: {name} is the name of one of this project's environments; give the file another one")
    python, packages = None, []
    for one in _dependencies(file):
        if isinstance(one, dict) and set(one) == {"pip"}:
            packages += [str(line) for line in one["pip"] or []]
        elif found := _PYTHON.fullmatch(str(one)):
            python = found[1]
        elif str(one) != "pip":
            raise DataError(
                f"{file}: dependencies: {one}: is a package of conda, which a virtual environment can't hold; move it "
                "to the `pip:` part, or use conda for this environment (--software-deployment-method conda)"
            )
    if python is None:
        raise DataError(f"{file}: dependencies: names no Python; add a line such as - python=3.11")
    return EnvSpec(name, file, python, tuple(packages), _constraints(file))


def spec_named(name: str) -> EnvSpec:
    """The environment of this name, or of this YAML file.

    Raises:
        DataError: there is none.
    """
    if name.endswith((".yaml", ".yml")):
        return read_spec(Path(name))
    known = sorted(path.stem for path in ENVS.glob("*.yaml"))
    if name not in known:
        raise DataError(f"{name}: no such environment (known: {', '.join(known)}){maybe(name, known)}")
    return read_spec(ENVS / f"{name}.yaml")


def specs_named(names: Sequence[str] | None) -> list[EnvSpec]:
    """Those of the names, without any those of all stages."""
    chosen = names or sorted(path.stem for path in ENVS.glob("*.yaml") if path.stem not in APART)
    return [spec_named(name) for name in dict.fromkeys(chosen)]


def pinned(file: Path) -> dict[str, str]:
    """Packages of an environment file's pip part by name, with their versions ("" where it gives none)."""
    found = {}
    for part in _dependencies(file):
        for line in part.get("pip") or [] if isinstance(part, dict) else []:
            name, _, version = str(line).partition("==")
            if name.replace("-", "").replace("_", "").replace(".", "").isalnum():
                found[name] = version
    return found


def exact_versions(text: str) -> tuple[str, ...]:
    """`name==version` of every line of a file of constraints, or of pins with hashes, less what a build of torch
    brings for its GPUs."""
    return tuple(line for line in _versions(text) if not _OF_TORCH.match(line))


def _versions(text: str) -> tuple[str, ...]:
    lines = (line.split("#")[0].split("--hash")[0].strip(" \\") for line in text.splitlines())
    return tuple(line for line in lines if "==" in line)


def _plain(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _release(version: str) -> str:
    """A version without what its build adds (`+cu130`): 1.0 and 1 are the same one."""
    return re.sub(r"(\.0)+$", "", version.strip().partition("+")[0])


def _dependencies(file: Path) -> list[Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{file}: no such environment file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{file}: cannot read it ({' '.join(str(error).split())})") from None
    dependencies = content.get("dependencies") if isinstance(content, dict) else None
    if not isinstance(dependencies, list):
        raise DataError(f"{file}: has no list `dependencies`")
    return dependencies


def _constraints(file: Path) -> tuple[str, ...]:
    """The exact versions of all that our own stages need; none for `mplug`, and for files from outside."""
    source = ENVS.parent / "constraints.txt"
    if not _is_ours(file) or file.stem == "mplug" or not source.is_file():
        return ()
    return exact_versions(source.read_text(encoding="utf-8"))


def _is_ours(file: Path) -> bool:
    return file.resolve().parent == ENVS.resolve()
