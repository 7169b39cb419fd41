"""Finished trainings are never deleted: what has to be said before one would be made again, and moving it aside.

Snakemake deletes a job's outputs before the job starts, and a checkpoint may have cost days on many GPUs. So the main
process refuses, before any job starts, to make a finished one again, unless it is named in `--config retrain=RUN`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from promptecho.errors import ConfigError, DataError
from promptecho.files import read_json

REPLACED = ".replaced-"
DECAY = "lr_decay_iterations"  # a key of `training` that follows `iterations` where it is null
SLICE = "training configuration"  # the name among a state's digests of the digest of its slice
INITIAL = "initial adapter"  # likewise, of the weights that a run began with
# What belongs to a run, below results/E, and what a name there begins with. The run itself comes last: as long as it is
# in its place, moving was cut short and is taken up again.
_STATES = ("work/train/{run}", "work/generate_shard/{run}")  # or the new run would go on from the old one's states
_FOLDERS: tuple[str, ...] = (*_STATES, "images/{run}", "scores/*/{run}", "answers/*/{run}", "tensorboard/{run}")
_FOLDERS += ("guards/*/*/{run}", "trackers/*/{run}", "runs/{run}")
_FILES = ("logs/train", "timings/train")


@dataclass
class Conflict:
    """A finished result that would be made again, or is not what the configuration asks for: `why` in words."""

    experiment: str
    what: str  # its folder or file
    runs: list[str]  # trainings that would be made again, or were made from it
    why: list[str]
    steps: list[int] = field(default_factory=list)
    shared: bool = False  # what changed is shared by all runs, as captions are: a new run is no way to keep both
    assignments: list[str] = field(default_factory=list)  # training keys as `--config set=` takes them
    keys: list[str] = field(default_factory=list)  # what was edited: dotted paths


def state_digests(checkpoint: str | Path) -> dict[str, str]:
    """What the state of a checkpoint (`runs/R/N`) says that it belongs to; empty where there is no readable state."""
    try:
        content = read_json(Path(checkpoint) / "state" / "state.json")
    except (DataError, OSError):
        return {}
    digests = content.get("digests") if isinstance(content, dict) else None
    return digests if isinstance(digests, dict) else {}


def finished_checkpoints(results: str | Path) -> dict[str, list[int]]:
    """Run -> steps of its checkpoints in `results/E/runs`; those that were moved aside do not count."""
    found: dict[str, list[int]] = {}
    for adapter in sorted(Path(results).glob("runs/*/*/adapter")):
        run, step = adapter.parts[-3:-1]
        if step.isdecimal() and REPLACED not in run:
            found.setdefault(run, []).append(int(step))
    return {run: sorted(steps) for run, steps in found.items()}


def names_in(text: object) -> list[str]:
    """The names that `--config retrain=` gives: a text with commas, or a list."""
    return [str(name) for name in (text if isinstance(text, list | tuple) else str(text).replace(",", " ").split())]


def named_runs(text: object, experiments: Mapping[str, Iterable[str]]) -> set[tuple[str, str]]:
    """(experiment, run) pairs that `--config retrain=` names: `RUN`, `E/RUN`, several with commas.

    Args:
        experiments: experiment -> its runs.

    Raises:
        ConfigError: an unknown run or experiment, or a name that several experiments have.
    """
    found, problems = set(), []
    for name in names_in(text):
        experiment, _, run = name.rpartition("/")
        homes = [each for each in experiments if run in experiments[each] and experiment in ("", each)]
        if len(homes) == 1:
            found.add((homes[0], run))
        elif homes:
            written = " or ".join(f"{home}/{run}" for home in homes)
            problems.append(f"retrain: {name}: several experiments have it; write {written}")
        else:
            known = ", ".join(f"{each}/{own}" for each in experiments for own in experiments[each])
            problems.append(f"retrain: {name}: no such run (known: {known or 'none'})")
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def refusal(conflicts: list[Conflict]) -> str:
    """All conflicts, one line each, and the ways on."""
    lines = []
    for conflict in conflicts:
        steps = f" (checkpoint{'s' if len(conflict.steps) > 1 else ''} {', '.join(map(str, conflict.steps))})"
        lines.append(f"{conflict.what}{steps if conflict.steps else ''}: {'; '.join(conflict.why)}")
    retrain = ",".join(dict.fromkeys(f"{c.experiment}/{run}" for c in conflicts for run in c.runs))
    ways = ["undo the change, or leave out --force, --forcerun (-R) and --forceall (-F)"]
    first = conflicts[0]
    if any(conflict.shared for conflict in conflicts):
        ways.append(f"keep both: copy config/experiments/{first.experiment}.yaml to a new name and change the copy")
    else:
        keys = first.assignments or ["KEY=VALUE"]
        example = " ".join(f"{first.experiment}.runs.NEW.{assignment}" for assignment in keys)
        ways.append(f"keep both: give the change to a new run, in `runs:` or with --config 'set={example}'")
    schedules = [{*conflict.keys} & {f"training.{DECAY}", "training.lr_schedule"} for conflict in conflicts]
    if {f"training.{DECAY}"} in schedules:  # of the same schedule
        ways.append(
            f"more iterations with the schedule that the run had: set its {DECAY} to the old value; it goes on at its "
            "lr_floor, which must be above 0"
        )
    ways.append(
        f"train again: --config retrain={retrain} moves the old run, its images and its scores aside first, to names "
        f"that end in {REPLACED}DIGEST"
    )
    head = "finished results would be made again, or are not what is asked for now; nothing was started or deleted:"
    return "\n".join([head, *lines, "Ways on:", *(f"- {way}" for way in ways)])


def aside_name(results: Path, run: str, digest: str) -> str:
    """A name for the old run that nothing has yet."""
    name = f"{run}{REPLACED}{digest}"
    number = 2
    while (results / "runs" / name).exists():
        name, number = f"{run}{REPLACED}{digest}-{number}", number + 1
    return name


def set_run_aside(results: str | Path, run: str) -> Path | None:
    """Rename a run and all that was made of it; nothing is copied or deleted. Returns its new folder; None without one.

    Raises:
        DataError: a folder cannot be renamed.
    """
    results = Path(results)
    folder = results / "runs" / run
    if not folder.is_dir():
        return None
    steps = sorted((path for path in folder.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))
    digests = [state_digests(step).get(SLICE) for step in steps]
    name = aside_name(results, run, next((digest for digest in reversed(digests) if digest), "unknown"))
    for place in _FILES:
        for file in sorted((results / place).glob(f"{run}.*")):
            if match := re.fullmatch(re.escape(run) + r"(\.\d+\.\w+)", file.name):
                _rename(file, file.with_name(name + match[1]))
    for pattern in _FOLDERS:
        for old in sorted(results.glob(pattern.format(run=_literal(run)))):
            _rename(old, old.with_name(name))
    return results / "runs" / name


def set_captions_aside(results: str | Path, files: Iterable[str], digest: str) -> Path | None:
    """Rename those of `files` that are there and lie in results/E/captions. Returns their new folder; None without any.

    Raises:
        DataError: a file cannot be renamed.
    """
    folder = Path(results) / "captions"
    found = [Path(file) for file in files if Path(file).is_relative_to(folder) and os.path.exists(file)]
    if not found:
        return None
    aside, number = folder.with_name(f"captions{REPLACED}{digest}"), 2
    while aside.exists():
        aside, number = folder.with_name(f"captions{REPLACED}{digest}-{number}"), number + 1
    for path in found:
        new = aside / path.relative_to(folder)
        new.parent.mkdir(parents=True, exist_ok=True)
        _rename(path, new)
    return aside


def _literal(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)


def _rename(old: Path, new: Path) -> None:
    try:
        os.rename(old, new)
    except OSError as error:
        raise DataError(f"{old}: cannot be moved aside to {new} ({error.strerror or error})") from None
