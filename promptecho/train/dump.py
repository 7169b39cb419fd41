"""When a reward, a loss or a gradient is not finite: everything that computing it again needs, in one folder.

`promptecho train --replay FOLDER` computes a dumped batch again; for a reward the message holds the command.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from promptecho.config.descriptors import REWARDS
from promptecho.errors import DataError
from promptecho.files import atomic_path, read_json, write_json

SCHEMA_VERSION = 1


def dump_reward(folder: Path, image: Image.Image, facts: dict[str, Any], vlm: str | None) -> str:
    """Write image and facts (reward, settings, prompt_id, label, ...); returns the command that scores the image again.

    Args:
        vlm: None where the run's rewards need none.
    """
    found = REWARDS.find(facts["reward"])
    own = found.is_ours and not found.thing.probe  # others have settings that only their configuration tells
    settings = [f"--set={key}={json.dumps(value)}" for key, value in facts.get("settings", {}).items()]
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        image.save(temporary / "image.png")
        command = [
            "promptecho", "reward", "--name", found.thing.name, *(settings if own else ["--config", "..."]),
            *(["--vlm", vlm] if vlm is not None and found.thing.needs_vlm else []),
            "--image", str(Path(folder) / "image.png"), "--label", facts["label"],
            *(["--query", facts["query"]] if "query" in found.thing.takes else []), "--json",
        ]  # fmt: skip
        write_json(temporary / "dump.json", {"schema_version": SCHEMA_VERSION, **facts, "command": shlex.join(command)})
    return shlex.join(command)


def dump_batch(folder: Path, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
    """Write the tensors of a batch (latents, noise, timesteps, ...; `weights.NAME`: the adapter) and the facts."""
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()},
                  temporary / "batch.safetensors")  # fmt: skip
        write_json(temporary / "dump.json", {"schema_version": SCHEMA_VERSION, **facts})


def load_batch(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what `dump_batch` wrote.

    Raises:
        DataError: the folder is no dump of a batch, or of another version.
    """
    folder = Path(folder)
    if not (folder / "batch.safetensors").is_file():
        raise DataError(f"{folder}: no batch.safetensors; give the dump folder that the error message named")
    facts = read_json(folder / "dump.json")
    if facts.get("schema_version") != SCHEMA_VERSION:
        raise DataError(f"{folder}: dump of schema {facts.get('schema_version')}, this version reads {SCHEMA_VERSION}")
    return load_file(folder / "batch.safetensors"), facts
