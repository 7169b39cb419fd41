"""Everything that resuming needs, as safetensors and JSON: readable at any world size, and no pickle.

A state describes the moment between two iterations. It names the run it belongs to by digests, so that a foreign
one is refused, and carries hashes of its tensors and of itself, so that a damaged one is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from promptecho.config.reruns import INITIAL, SLICE
from promptecho.errors import DataError, StateError
from promptecho.files import atomic_path, digest, read_json, sha256_file, write_json
from promptecho.pointers import pointer_problem
from promptecho.train.prompts import PromptUse, change, restarted

SCHEMA_VERSION = 2
FILES = ("weights", "exp_avg", "exp_avg_sq", "kl_ema", "ema")
OPTIONAL = ("best",)
HELDOUT = "held-out captions file"  # a name among a state's digests, as SLICE is


class OtherCaptionsError(StateError):
    """A state is sound and of this run, but prompts that it has used have changed."""


@dataclass
class TrainingState:
    """Tensors by parameter name: LoRA weights, Adam moments, EMA of the policy, EMA for evaluation, and with an early
    stop the best evaluated weights. They are never changed in place: a thread may be writing them."""

    iteration: int  # completed iterations
    optimizer_steps: int
    tensors: dict[str, dict[str, torch.Tensor]]
    digests: dict[str, str]  # what the state belongs to: training slice, captions
    facts: dict[str, Any] = field(default_factory=dict)  # recorded, not compared: world size, threads, versions
    early_stop: dict[str, Any] = field(default_factory=dict)  # the held-out evaluations so far
    prompts: dict[str, Any] = field(default_factory=dict)  # the prompts used so far (prompts.py)
    parts: torch.Tensor | None = None  # Adam's moments as this rank has them, where `tensors` lack them


def save_state(state: TrainingState, folder: Path) -> None:
    """Write a state folder atomically.

    Raises:
        DataError: the disk is full.
    """
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        hashes = {}
        for name in (*FILES, *(name for name in OPTIONAL if name in state.tensors)):
            path = temporary / f"{name}.safetensors"
            tensors = {key: value.cpu().contiguous() for key, value in sorted(state.tensors[name].items())}
            save_file(tensors, path)
            hashes[name] = sha256_file(path)
        content = {
            "schema_version": SCHEMA_VERSION,
            "iteration": state.iteration,
            "optimizer_steps": state.optimizer_steps,
            "digests": state.digests,
            "facts": state.facts,
            "early_stop": state.early_stop,
            "prompts": state.prompts,
            "sha256": hashes,
        }
        write_json(temporary / "state.json", {**content, "content_digest": digest(content)})


def load_state(
    folder: Path, digests: dict[str, str], use: PromptUse | None = None, accept: bool = False
) -> TrainingState:
    """Read and check a state folder.

    Other captions or label files than the state's fit too, if the prompts that it has used are the same in them; its
    record is then as new. With `accept`, any captions fit, and the record starts again.

    Raises:
        StateError: missing, damaged, or of another run; names folder and file.
    """
    folder = Path(folder)
    if not (folder / "state.json").is_file():
        raise StateError(f"{folder}: no state.json; not a training state, or its write was cut short")
    facts = _read_facts(folder / "state.json")
    for key, value in digests.items():
        found = facts["digests"].get(key)
        if found != value and (use is None or key in (SLICE, INITIAL)):
            raise StateError(
                f"{folder}: belongs to another {key} ({found}, this run has {value}); "
                "delete it, or restore the configuration it was made with"
            )
    prompts = facts.get("prompts") or {}
    if use is not None:
        prompts = _prompts(folder, facts, digests, use, accept)
    tensors = {}
    for name in (*FILES, *(name for name in OPTIONAL if name in facts["sha256"])):
        path = folder / f"{name}.safetensors"
        if not path.is_file() or sha256_file(path) != facts["sha256"][name]:
            raise StateError(f"{path}: {pointer_problem(path) or 'damaged or missing'}")
        try:
            tensors[name] = load_file(path)
        except SafetensorError as error:
            raise StateError(f"{path}: not readable ({error})") from error
    belongs = facts["digests"] if use is None else {**facts["digests"], **digests}
    return TrainingState(
        facts["iteration"], facts["optimizer_steps"], tensors, belongs, facts["facts"], facts["early_stop"], prompts
    )


def _prompts(
    folder: Path, facts: dict[str, Any], digests: dict[str, str], use: PromptUse, accept: bool
) -> dict[str, Any]:
    """The record of the prompts that a state has used, where this run may go on from it."""
    changed = [key for key, value in digests.items() if facts["digests"].get(key) != value]
    record = facts.get("prompts") or None
    if not changed:
        return record or use.record(facts["iteration"])
    problem = f"its {HELDOUT} is another" if HELDOUT in changed else change(facts, use)
    if problem is None:
        assert record is not None, "a state without one has a problem"
        return record
    if accept:
        return restarted(record or {}, facts["iteration"])
    raise OtherCaptionsError(
        f"{folder}: belongs to other captions or labels: {problem}; restore the {' and the '.join(changed)}, "
        "give the run another name to start anew, or go on from here with the new ones: --accept-captions "
        "(training.accept_captions)"
    )


def _read_facts(path: Path) -> dict[str, Any]:
    """The checked content of a state.json."""
    try:
        content = read_json(path)
    except DataError:
        content = None
    if not isinstance(content, dict) or content.pop("content_digest", None) != digest(content):
        raise StateError(f"{path}: damaged")
    if content["schema_version"] != SCHEMA_VERSION:
        raise StateError(f"{path}: state of schema {content['schema_version']}, this version reads {SCHEMA_VERSION}")
    return content


def averaged(average: dict, weights: dict, decay: float) -> dict[str, torch.Tensor]:
    """A moving average of weights by name, one step further."""
    return {name: decay * average[name] + (1 - decay) * weights[name] for name in weights}


def distance(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> float:
    """Euclidean distance of two sets of weights."""
    squares = [(after[name] - before[name]).double().square().sum() for name in before]
    return sum(torch.stack(squares).tolist()) ** 0.5
