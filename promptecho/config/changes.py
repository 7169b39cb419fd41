"""What made a finished result, and which keys have changed since: told before anything finished would be made again.

A training's state carries the digest of its slice of the configuration. The slice itself is in
`results/E/config/slices/DIGEST.json`; for results that are older than those records it is computed again from the
resolved configurations in `results/E/config/`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from promptecho.config.former_behaviour import FORMER_BEHAVIOUR
from promptecho.config.load import load_experiment
from promptecho.config.slices import slice_value
from promptecho.config.training import TrainingConfig
from promptecho.errors import ConfigError, DataError
from promptecho.files import digest, read_json, write_json

SLICES = "slices"
# Where parts of a slice stand in the configuration; the first that fits is taken.
_PLACES = {
    "train": (
        ("captions.captions.", "captions."),
        ("captions.vlm.", "models.vlm."),
        ("captions.tokenizer.", "models.t2i."),
        ("captions.version", "version of the captioning"),
        ("version", "version of the training"),
        ("models.t2i.family_version", "version of the family"),
        ("training.init_adapter.training", "settings of the run that training.init_adapter names"),
    ),
    "merge": (("vlm.", "models.vlm."), ("tokenizer.", "models.t2i."), ("version", "version of the captioning")),
}
_INITIAL = "training.init_adapter"
_OF_MODEL = {"models.t2i.height", "models.t2i.width"}  # in a slice only where the training has no size of its own
_ABSENT = object()


class Change(NamedTuple):
    """A key whose value has changed."""

    path: str
    old: str
    new: str
    gone: bool = False  # it means nothing in the new configuration

    def __str__(self) -> str:
        return f"{self.path} (was {self.old}, now {self.new})"


def record_slice(folder: Path, value: dict[str, Any]) -> None:
    """Keep what a slice's digest stands for, in `folder` (`results/E/config`)."""
    path = Path(folder) / SLICES / f"{digest(value)}.json"
    if not path.exists():
        write_json(path, value)


def recorded_slice(folder: Path, stage: str, run: str | None, wanted: str) -> dict[str, Any] | None:
    """The slice with digest `wanted`; None where no configuration in `folder` has it."""
    path = Path(folder) / SLICES / f"{wanted}.json"
    if path.is_file():
        try:
            value = read_json(path)
            if digest(value) == wanted:
                return value
        except DataError:
            pass  # the configurations are as good
    newest_first = sorted(Path(folder).glob("*.yaml"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in newest_first:
        try:
            value = slice_value(load_experiment(file), stage, run)
        except ConfigError:  # of another version, or without this run
            continue
        if digest(value) == wanted:
            return value
    return None


def changes(stage: str, old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """Dotted paths of the configuration whose values differ, with both values."""
    before, now = (_flat(stage, side) for side in _initial_as_one(old, new))
    found = []
    for path in [*before, *(path for path in now if path not in before)]:
        values = [side.get(path, _ABSENT) for side in (before, now)]
        if values[0] == values[1] or (path in _OF_MODEL and _ABSENT in values):
            continue
        gone = values[1] is _ABSENT and path not in FORMER_BEHAVIOUR
        found.append(Change(path, _told(path, values[0]), _told(path, values[1]), gone))
    return found


def assignments(found: Sequence[Change], training: TrainingConfig) -> list[str]:
    """Changes as `--config set=` takes them for a new run, behind `E.runs.NEW.`; none where a new run is no way to keep
    both, since something has changed that runs share.

    Args:
        training: of the run, as it is now.
    """
    if any(not change.path.startswith("training.") or change.path.startswith(f"{_INITIAL}.") for change in found):
        return []
    settings, texts = training.model_dump(mode="json"), []
    for change in found:
        if change.gone:
            continue
        key = change.path.removeprefix("training.")
        if key == "sizes" and training.buckets is not None:  # which count as what they come to
            key = "buckets"
        value: Any = settings
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is None:  # what counts may be the value of another key, as that of lr_decay_iterations is
            value = "null" if change.path == _INITIAL else change.new
        texts.append(f"{key}={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}")
    return texts


def _initial_as_one(old: dict[str, Any], new: dict[str, Any]) -> list[dict[str, Any]]:
    """Both slices; what a run begins with as one value where another name or step of `init_adapter` makes the
    difference, and key by key where the entry, or the run, that it names may be another one."""
    key = "init_adapter"
    sides = [side["training"].get(key) if isinstance(side.get("training"), dict) else None for side in (old, new)]
    for kind in ("adapter", "training"):
        values = [side.get(kind) if side else None for side in sides]
        if None not in values and (kind == "adapter" or values[0] != values[1]):
            return [old, new]
    return [
        {**value, "training": {**value["training"], key: _initial_in_words(side)}} if side else value
        for value, side in zip((old, new), sides, strict=True)
    ]


def _initial_in_words(initial: dict[str, Any]) -> str:
    return f"checkpoint {initial['step']} of a run" if "training" in initial else f"adapter {initial['adapter']}"


def _told(path: str, value: Any) -> str:
    if value is _ABSENT:
        value = FORMER_BEHAVIOUR.get(path, _ABSENT)
    return "not there" if value is _ABSENT else "null" if value is None else str(value)


def _flat(stage: str, value: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def visit(path: str, item: Any) -> None:
        if isinstance(item, dict) and item:
            pairs: Iterable[tuple[Any, Any]] = item.items()
        elif isinstance(item, list) and any(isinstance(entry, dict) for entry in item) and path != "training.sizes":
            pairs = enumerate(item)
        else:
            place = _place(stage, path)
            if found.setdefault(place, item) != item:  # captions and reward may come from different models
                found[f"{place} of the captions"] = item
            return
        for key, entry in pairs:
            visit(f"{path}.{key}" if path else str(key), entry)

    visit("", value)
    return found


def _place(stage: str, path: str) -> str:
    for prefix, replacement in _PLACES.get(stage, ()):
        if path.startswith(prefix):
            return replacement + path.removeprefix(prefix)
    return path
