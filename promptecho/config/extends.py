"""An experiment file that builds on another one: `extends: shapes` takes the keys of shapes.yaml beside it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from promptecho.config.fields import NAME_PATTERN
from promptecho.config.yaml_files import deep_merge, read_yaml
from promptecho.errors import ConfigError
from promptecho.suggest import maybe

KEY = "extends"


def read_experiment(path: str | Path) -> dict[str, Any]:
    """The keys of an experiment file, laid over those of the file that it extends, and so on.

    Mappings are merged key by key, `runs` too; lists and values are replaced. An experiment is what results from this:
    resolved configurations hold all keys and extend nothing, so that digests are those of a file with all keys in it.

    Raises:
        ConfigError: a file is missing, not a YAML mapping, or extends itself; names the file.
    """
    raw = read_yaml(path)
    if KEY not in raw:
        return raw
    seen, parts = [Path(path).stem], [raw]
    while KEY in parts[-1]:
        name, folder = parts[-1].pop(KEY), Path(path).parent
        at = f"{folder / seen[-1]}.yaml: {KEY}"
        if not isinstance(name, str) or not re.fullmatch(NAME_PATTERN, name):
            raise ConfigError(f"{at}: {name!r} is no name; name another file of this folder without .yaml")
        if name in seen:
            raise ConfigError(f"{at}: {name} extends {seen[-1]} itself; remove one of them")
        if not (folder / f"{name}.yaml").is_file():
            known = sorted(file.stem for file in folder.glob("*.yaml") if file.stem not in seen)
            told = f"known: {', '.join(known) or 'none'}"
            raise ConfigError(f"{at}: no {folder / name}.yaml ({told}){maybe(name, known)}")
        seen.append(name)
        parts.append(read_yaml(folder / f"{name}.yaml"))
    merged = parts.pop()
    while parts:
        merged = deep_merge(merged, parts.pop())
    return merged
