"""Presets: files of `training` keys by name, config/presets/NAME.yaml, put under the keys that an experiment writes.

They are resolved before validation, so that a resolved configuration holds their keys and needs no preset's file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from promptecho.config.yaml_files import deep_merge, read_yaml
from promptecho.errors import ConfigError
from promptecho.suggest import did_you_mean

OF_CHECKOUT = Path(__file__).resolve().parents[2] / "config" / "presets"


def with_preset(keys: Any, where: str, folder: Path | None, problems: dict[str, str]) -> Any:
    """`keys` of `training` or of a run, over those of the preset that they name; without `preset` itself.

    Args:
        where: the section, for messages.
        folder: where the user keeps presets; those of the checkout are known beside them.
        problems: dotted path -> what is wrong; added to.
    """
    if not isinstance(keys, dict) or "preset" not in keys:
        return keys
    keys = dict(keys)
    name = keys.pop("preset")
    if name is None:
        return keys
    folders = [one for one in (folder, OF_CHECKOUT) if one is not None and one.is_dir()]
    known = {path.stem: path for one in reversed(folders) for path in sorted(one.glob("*.yaml"))}
    if not isinstance(name, str) or name not in known:
        problems[f"{where}.preset"] = f"{name}: no such preset; {did_you_mean(name, sorted(known))}"
        return keys
    try:
        preset = read_yaml(known[name])
    except ConfigError as error:
        problems[f"{where}.preset"] = str(error)
        return keys
    if "preset" in preset:
        problems[f"{where}.preset"] = f"{known[name]}: a preset names no other preset; remove that key"
        return keys
    return deep_merge(preset, keys)
