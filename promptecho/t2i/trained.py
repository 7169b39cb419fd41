"""What a run trains: an adapter beside the transformer, or the transformer itself; and its checkpoint in files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from promptecho.config.families import Family
from promptecho.config.training import TrainingConfig
from promptecho.errors import DataError, counted
from promptecho.files import atomic_path
from promptecho.t2i.lora import add_lora, load_adapter, save_adapter

# A folder with these two is one of diffusers' models, as the folder `transformer` of a pipeline is.
CONFIG_FILE, WEIGHTS_FILE = "config.json", "diffusion_pytorch_model.safetensors"


def make_trainable(
    transformer: torch.nn.Module, training: TrainingConfig, targets: Mapping[str, Sequence[str]]
) -> torch.nn.Module:
    """The module with what `training.finetuning` trains: an adapter put on, or its own weights, which are float32.

    Raises:
        ModelError: as of `add_lora`.
    """
    if training.finetuning == "lora":
        return add_lora(transformer, training.lora, training.seed, targets)
    return transformer.requires_grad_(True).float()


def save_trained(model: torch.nn.Module, weights: dict[str, torch.Tensor], folder: Path, family: Family) -> None:
    """Save `weights` (as `trained_parameters` names them): an adapter's folder, or a model folder of diffusers in
    float32, which a pipeline takes as its transformer.

    Raises:
        DataError: the disk is full or not writable.
    """
    if isinstance(model, PeftModel):
        save_adapter(model, weights, folder, family)
        return
    state = _buffers(model) | {name: value.detach().to("cpu", torch.float32) for name, value in weights.items()}
    transformer: Any = model
    config = json.loads(transformer.to_json_string())
    config.pop("_name_or_path", None)  # a path of one machine says nothing on another
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        save_file({name: value.contiguous() for name, value in sorted(state.items())}, temporary / WEIGHTS_FILE)
        text = json.dumps(config, indent=2, sort_keys=True)
        (temporary / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def _buffers(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What a model's state has besides its parameters; ZeRO-3 leaves it whole."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return {name: value.cpu() for name, value in model.state_dict().items() if name not in parameters}


def load_trained(transformer: torch.nn.Module, folder: Path) -> torch.nn.Module:
    """A checkpoint's adapter put onto the transformer, or its weights put into it, for inference.

    Raises:
        DataError: the folder is incomplete or does not fit the transformer.
    """
    if not (folder / WEIGHTS_FILE).is_file():
        return load_adapter(transformer, folder)
    try:
        state = load_file(folder / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{folder / WEIGHTS_FILE}: not readable ({error})") from error
    known = transformer.state_dict()
    odd = sorted(known.keys() ^ state.keys())
    odd += sorted(name for name in known.keys() & state.keys() if known[name].shape != state[name].shape)
    if odd:
        count = counted(len(odd), "tensor is", "tensors are")
        raise DataError(
            f"{folder}: the weights do not fit this text-to-image model: {count} missing on one side or of another "
            f"shape, such as {odd[0]}"
        )
    transformer.load_state_dict(state)
    return transformer
