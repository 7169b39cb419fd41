"""Where environments lie that were built, and whether they are what their files say.

    FOLDER/NAME               a link to the environment in use; it exists only once that is whole
    FOLDER/builds/NAME-DIGEST the environment, with `environment.json`, which is written last; `-DIGEST` of its lock
                              file behind it where the lock's files were taken, and `-2` beside one that is damaged

An environment is never changed: one of a changed file is built beside it, so that jobs that run keep theirs.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from promptecho.envs.spec import EnvSpec
from promptecho.errors import DataError
from promptecho.files import read_json

BUILDS = "builds"
RECORD = "environment.json"
EnvState = Literal["current", "missing", "stale", "broken", "changed", "unlocked"]


@dataclass(frozen=True)
class BuiltEnv:
    """How an environment stands in a folder.

    `problem` says in words what is wrong with it, "" of a current one; `exact`: the files of its lock were asked for.
    """

    spec: EnvSpec
    folder: Path
    state: EnvState
    problem: str
    record: dict[str, Any]
    exact: bool = False

    @property
    def line(self) -> str:
        """What is wrong and how to mend it."""
        fix = f"promptecho envs build {self.spec.argument}{' --exact' * self.exact} --into {self.folder}"
        if self.state == "unlocked":
            fix = "leave --exact out for this one, or write that file"
        if self.state == "changed":
            fix = f"move {(self.folder / self.spec.name).resolve()} away when no job uses it, then {fix}"
        return f"environment {self.spec.name}: {self.problem}; {fix}"


def build_folder(folder: Path, spec: EnvSpec, exact: bool = False, number: int = 1) -> Path:
    """Where the environment of a file, as the file (`exact`: and its lock) is now, is built; the `number`-th one."""
    locked, again = f"-{spec.lock_digest}" if exact else "", f"-{number}" if number > 1 else ""
    return folder / BUILDS / f"{spec.name}-{spec.digest}{locked}{again}"


def look_at(folder: Path, spec: EnvSpec, exact: bool = False) -> BuiltEnv:
    """How an environment stands in `folder`; `exact`: whether it has the files that the lock lists now, too. It starts
    no process and reads two files."""
    state, problem, record = _standing(folder, spec, exact)
    return BuiltEnv(spec, folder, state, problem, record, exact)


def _standing(folder: Path, spec: EnvSpec, exact: bool) -> tuple[EnvState, str, dict[str, Any]]:
    if exact and not spec.lock.is_file():
        return "unlocked", f"{spec.lock} is not there", {}
    link = folder / spec.name
    if not os.path.lexists(link):
        begun = build_folder(folder, spec).is_dir()
        return "missing", f"is {'not finished' if begun else 'not'} in {folder}", {}
    try:
        record = read_json(link / RECORD)
    except DataError as error:
        return "broken", f"{link} was not made by this command, or is damaged ({error})", {}
    if not isinstance(record, dict):
        return "broken", f"{link} is damaged ({RECORD} holds no facts)", {}
    if record.get("digest") != spec.digest:
        return "stale", f"{link} was built from another version of {spec.file.name}", record
    if exact and record.get("exact") != spec.lock_digest:
        return "stale", f"{link} was built from other files than {spec.lock.name} lists", record
    if not os.access(link / "bin/python", os.X_OK):
        return "broken", f"the Python that {link} was made with is gone, or can't be seen from this machine", record
    return "current", "", record


def look_inside(one: BuiltEnv) -> BuiltEnv:
    """How a current environment stands after its packages were compared with those that it was built with, by name and
    version."""
    if one.state != "current":
        return one
    link = one.folder / one.spec.name
    now, then = set(installed(link)), set(one.record.get("packages", ()))
    if now == then:
        return one
    told = [f"{name} came" for name in sorted(now - then)] + [f"{name} went" for name in sorted(then - now)]
    return replace(one, state="changed", problem=f"{link} was changed after it was built: {', '.join(told)}")


def installed(environment: Path) -> list[str]:
    """`name==version` of every package that is installed in a virtual environment itself."""
    folders = [str(path) for path in environment.glob("lib/python3*/site-packages")]
    found = importlib.metadata.distributions(path=folders)
    return sorted(f"{one.metadata['Name']}=={one.version}" for one in found)


def left_over(folder: Path, specs: Iterable[EnvSpec]) -> list[Path]:
    """Builds of these environments that their links do not lead to."""
    found: list[Path] = []
    for spec in specs:
        in_use = (folder / spec.name).resolve()
        named = re.compile(re.escape(spec.name) + r"(-[0-9a-f]{12}){1,2}(-\d+)?")
        builds = sorted(one for one in (folder / BUILDS).glob(f"{spec.name}-*") if named.fullmatch(one.name))
        found += [one for one in builds if one.resolve() != in_use]
    return found
