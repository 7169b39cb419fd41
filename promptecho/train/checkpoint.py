"""Where a segment starts from and what it leaves: rolling states while it runs, a checkpoint at its end."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

import promptecho
from promptecho.compute import mode
from promptecho.errors import DataError, StateError
from promptecho.files import atomic_path, read_jsonl, write_jsonl
from promptecho.t2i.trained import save_trained
from promptecho.train.prompts import PromptUse
from promptecho.train.state import OtherCaptionsError, TrainingState, load_state, save_state

STATES = "states"  # work/states/000012/: the state after 12 iterations, with the segment's metrics up to there
LIVE = "live.jsonl"  # the metrics so far, for those who watch


def facts() -> dict:
    """What a state records but does not compare: bits agree at the same world size and thread count only."""
    return {
        "promptecho_version": promptecho.__version__,
        "torch_version": torch.__version__,
        "world_size": dist.get_world_size() if dist.is_initialized() else 1,
        "threads": torch.get_num_threads(),
        "compute": mode.recorded(),
    }


def rolling_states(work: Path) -> list[Path]:
    """The rolling states of a segment, newest first; a name with a dot is a write that was cut short."""
    folder = Path(work) / STATES
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if path.name.isdigit()), reverse=True)


def save_rolling(work: Path, state: TrainingState, rows: list[dict], keep: int) -> None:
    """Save the state between two iterations, then delete all but the newest `keep`. Rank 0 alone calls it, in any
    thread; the state has its `facts`."""
    target = Path(work) / STATES / f"{state.iteration:06d}"
    with atomic_path(target) as temporary:
        save_state(state, temporary)
        write_jsonl(temporary / "metrics.jsonl", rows)
    # Later ones were passed over at the start (damaged, or of another configuration): no newer states of this run.
    found = rolling_states(work)
    later = [path for path in found if int(path.name) > state.iteration]
    kept = [*later, *found[len(later) :][:keep]]
    for path in target.parent.iterdir():
        if path not in kept:
            shutil.rmtree(path)


def find_start(
    work: Path, resume: Path | None, digests: dict[str, str], to: int, *, announce: bool = True,
    use: PromptUse | None = None, accept: bool = False,
) -> tuple[TrainingState | None, list[dict]]:  # fmt: skip
    """The newest good state to go on from, and this segment's metrics up to it; None: from the beginning.

    Tried in this order: the rolling states, the checkpoint `resume`, the run's older checkpoints beside it. What is
    damaged, or belongs to another run, is passed over, and named on stderr if `announce`; not one that differs in its
    captions alone (`load_state` has `use` and `accept`): to start again because of one line would waste work.

    Raises:
        StateError: `resume` was given, and neither it nor anything older can be used; or a state belongs to other
            captions.
    """
    for folder in rolling_states(work):
        try:
            return load_state(folder, digests, use, accept), read_jsonl(folder / "metrics.jsonl")
        except OtherCaptionsError:
            raise
        except (StateError, DataError) as error:
            if announce:
                print(f"promptecho: {error}; trying the state before it", file=sys.stderr, flush=True)
    if resume is None:
        return None, []
    first: StateError | None = None
    for folder in [Path(resume), *older_checkpoints(Path(resume))]:
        try:
            state = load_state(folder / "state", digests, use, accept)
            if state.iteration >= to:
                raise StateError(f"{folder}: is at iteration {state.iteration}, not before --to {to}")
            if first is not None and announce:
                print(f"promptecho: {first}; going on from {folder} instead", file=sys.stderr, flush=True)
            return state, []
        except OtherCaptionsError:
            raise
        except StateError as error:
            first = first or error
    assert first is not None
    raise first


def older_checkpoints(checkpoint: Path) -> list[Path]:
    """The run's checkpoints before this one, newest first."""
    if not checkpoint.name.isdigit():
        return []
    siblings = [path for path in checkpoint.parent.glob("*") if path.name.isdigit() and (path / "state").is_dir()]
    older = [path for path in siblings if int(path.name) < int(checkpoint.name)]
    return sorted(older, key=lambda path: int(path.name), reverse=True)


def write_checkpoint(out: Path, family, model, state: TrainingState, evaluated: str, rows: Sequence[dict]) -> None:
    """Write state, adapter (from the tensors named `evaluated`) and metrics; the last two last, so that a complete
    checkpoint has all three."""
    state.facts = facts()
    save_state(state, out / "state")
    save_trained(model, state.tensors[evaluated], out / "adapter", family.descriptor)
    write_jsonl(out / "metrics.jsonl", list(rows))


def clear(work: Path) -> None:
    """Delete what a finished segment needs no more."""
    for name in (STATES, "ranks"):
        shutil.rmtree(Path(work) / name, ignore_errors=True)
    (Path(work) / LIVE).unlink(missing_ok=True)


def describe(path: Path) -> str:
    """A path as the user would type it here."""
    return os.path.relpath(path)
