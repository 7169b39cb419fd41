"""Everything that resuming needs, as safetensors and JSON: readable at any world size, and no pickle.

A state describes the moment between two iterations. It names the run it belongs to by digests, so that a foreign
one is refused, and carries a hash of its tensors, so that a damaged one is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from promptecho.errors import StateError
from promptecho.files import atomic_path, read_json, sha256_file, write_json

SCHEMA_VERSION = 1
FILES = ("weights", "exp_avg", "exp_avg_sq", "kl_ema", "ema")


@dataclass
class TrainingState:
    """Tensors by parameter name: LoRA weights, Adam moments, EMA of the policy, EMA for evaluation."""

    iteration: int  # completed iterations
    optimizer_steps: int
    tensors: dict[str, dict[str, torch.Tensor]]
    digests: dict[str, str]  # what the state belongs to: training slice, captions
    facts: dict[str, Any] = field(default_factory=dict)  # recorded, not compared: world size, threads, versions


def save_state(state: TrainingState, folder: Path) -> None:
    """Write a state folder atomically.

    Raises:
        DataError: the disk is full.
    """
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        hashes = {}
        for name in FILES:
            path = temporary / f"{name}.safetensors"
            save_file({key: value.contiguous() for key, value in sorted(state.tensors[name].items())}, path)
            hashes[name] = sha256_file(path)
        write_json(
            temporary / "state.json",
            {
                "schema_version": SCHEMA_VERSION,
                "iteration": state.iteration,
                "optimizer_steps": state.optimizer_steps,
                "digests": state.digests,
                "facts": state.facts,
                "sha256": hashes,
            },
        )


def load_state(folder: Path, digests: dict[str, str]) -> TrainingState:
    """Read and check a state folder.

    Raises:
        StateError: missing, damaged, or of another run; names folder and file.
    """
    folder = Path(folder)
    if not (folder / "state.json").is_file():
        raise StateError(f"{folder}: no state.json; not a training state, or its write was cut short")
    facts = read_json(folder / "state.json")
    if facts.get("schema_version") != SCHEMA_VERSION:
        raise StateError(
            f"{folder}: state of schema {facts.get('schema_version')}, this version reads {SCHEMA_VERSION}"
        )
    for key, value in digests.items():
        found = facts["digests"].get(key)
        if found != value:
            raise StateError(
                f"{folder}: belongs to another {key} ({found}, this run has {value}); "
                "delete it, or restore the configuration it was made with"
            )
    tensors = {}
    for name in FILES:
        path = folder / f"{name}.safetensors"
        if not path.is_file() or sha256_file(path) != facts["sha256"][name]:
            raise StateError(f"{path}: damaged or missing; delete {folder} to fall back on the previous checkpoint")
        try:
            tensors[name] = load_file(path)
        except SafetensorError as error:
            raise StateError(f"{path}: not readable ({error})") from error
    return TrainingState(facts["iteration"], facts["optimizer_steps"], tensors, facts["digests"], facts["facts"])
