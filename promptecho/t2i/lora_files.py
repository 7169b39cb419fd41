"""LoRA weights in the formats of PEFT and diffusers, read into one form."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from promptecho.errors import ConfigError, DataError
from promptecho.files import read_json

PEFT_CONFIG, PEFT_FILE = "adapter_config.json", "adapter_model.safetensors"
DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
METADATA_KEYS = ("lora_adapter_metadata", "transformer_lora_adapter_metadata")

# Keys of PEFT's configuration that say nothing on what the adapter computes, or that are read here.
KNOWN_KEYS = {
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "target_modules", "exclude_modules",
    "layers_to_transform", "layers_pattern", "lora_dropout", "init_lora_weights", "bias", "eva_config", "loftq_config",
    "megatron_core", "qalora_group_size", "runtime_config", "ensure_weight_tying",
}  # fmt: skip
# The others change the base weights at the start, so that A and B alone are not the adapter.
KNOWN_INITS = (None, True, False, "gaussian", "orthogonal", "eva")

# Signs of trainers whose names diffusers converts.
FOREIGN = re.compile(r"^(diffusion_model\.|lora_unet_)|\.lora_(down|up)\.|\.lora\.(down|up)\.|\.alpha$")
FOREIGN_PAIR = re.compile(r"^(.+?)\.(lora_A|lora_down|lora\.down)(\.default)?\.weight$")


@dataclass(frozen=True)
class Pair:
    """One module's LoRA: down [rank, in], up [out, rank]; float32."""

    down: torch.Tensor
    up: torch.Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]


@dataclass(frozen=True)
class Lora:
    """An adapter: its pairs by module name, and which modules its configuration says it has."""

    pairs: dict[str, Pair]
    use_rslora: bool = False
    targets: Callable[[str], Any] = lambda name: False


def read_peft(folder: Path) -> Lora:
    """Read a PEFT folder.

    Raises:
        DataError: damaged, not plain LoRA, or weights and configuration disagree.
    """
    config = read_json(folder / PEFT_CONFIG)
    tensors, _ = read_tensors(folder / PEFT_FILE)
    return _with_config(_pairs(tensors, "base_model.model.", folder / PEFT_FILE), config, folder / PEFT_CONFIG)


def read_diffusers(path: Path, pipeline_class: type, alpha: float | None = None) -> Lora:
    """Read a LoRA file as diffusers' pipelines save and load it.

    Alpha comes from the file's metadata or from its `.alpha` entries. diffusers takes alpha = rank where a file tells
    none, here that is an error unless `alpha` is given: an adapter of alpha = 2 rank would act at half strength.

    Raises:
        ConfigError: `alpha` is given, but the file tells it.
        DataError: damaged, not plain LoRA, or alpha is not known.
    """
    tensors, metadata = read_tensors(path)
    config = _metadata_config(metadata, path)
    foreign = any(FOREIGN.search(key) for key in tensors)
    told = config is not None
    if foreign and not told:
        told = _has_alphas(tensors, path)
    if told and alpha is not None:
        raise ConfigError(f"{path} tells alpha; leave --alpha out")
    if foreign:
        try:
            tensors = pipeline_class.lora_state_dict(dict(tensors))
        except (ValueError, KeyError, AttributeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{path}: diffusers cannot convert this LoRA ({reason})") from error
    pairs = _pairs(tensors, "transformer.", path)
    if config is not None:
        return _with_config(pairs, config, path)
    if not told and alpha is None:
        first = next(iter(pairs.values()))[0]
        raise DataError(
            f"{path}: does not tell alpha, and the adapter's strength is alpha / rank; give --alpha as it was trained "
            f"with (--alpha {first.shape[0]} is strength 1 for its rank, what diffusers would assume)"
        )
    # diffusers has multiplied the weights by alpha / rank where the file told it.
    return Lora({name: Pair(a, b, float(a.shape[0]) if told else float(alpha)) for name, (a, b) in pairs.items()})


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of a safetensors file, in float32, and its metadata.

    Raises:
        DataError: the file is damaged or missing.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key).float() for key in sorted(file.keys())}
            return tensors, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: not a readable safetensors file ({error}); download it again") from error


def _pairs(tensors: dict[str, torch.Tensor], prefix: str, where: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Down and up weights by module."""
    halves: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in sorted(tensors.items()):
        found = re.fullmatch(rf"(?:{re.escape(prefix)})?(.+)\.lora_([AB])\.weight", key)
        if found is None or value.ndim != 2:
            shape = list(value.shape)
            raise DataError(f"{where}: {key} {shape} is no LoRA weight of a linear layer; only those are read")
        halves.setdefault(found[1], {})[found[2]] = value
    if not halves:
        raise DataError(f"{where}: no weights in it")
    for name, pair in halves.items():
        if len(pair) != 2:
            raise DataError(f"{where}: {name} has lora_{next(iter(pair))} only; the file is incomplete")
        if pair["A"].shape[0] != pair["B"].shape[1]:
            ranks = f"{pair['A'].shape[0]} in lora_A, {pair['B'].shape[1]} in lora_B"
            raise DataError(f"{where}: {name} has two ranks: {ranks}; the file is damaged")
    return {name: (pair["A"], pair["B"]) for name, pair in halves.items()}


def _with_config(pairs: dict[str, tuple[torch.Tensor, torch.Tensor]], config: Any, where: Path) -> Lora:
    """Give the pairs their alpha by PEFT's rules, and check that weights and configuration agree."""
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists
    from peft.utils.other import get_pattern_key

    if not isinstance(config, dict):
        raise DataError(f"{where}: expected a JSON object, found {type(config).__name__}")
    _refuse_variants(config, where)
    if not isinstance(config.get("lora_alpha"), int | float) or not isinstance(config.get("r"), int):
        raise DataError(f"{where}: r and lora_alpha must be numbers; the adapter's strength is lora_alpha / r")
    ranks, alphas = config.get("rank_pattern") or {}, config.get("alpha_pattern") or {}
    made = {}
    for name, (down, up) in pairs.items():
        rank = ranks.get(get_pattern_key(ranks, name), config["r"])
        if rank != down.shape[0]:
            raise DataError(f"{where}: {name} has rank {down.shape[0]} in the weights, {rank} in the configuration")
        made[name] = Pair(down, up, float(alphas.get(get_pattern_key(alphas, name), config["lora_alpha"])))
    targets = config.get("target_modules")
    if not targets:
        return Lora(made, bool(config.get("use_rslora")))
    if targets == "all-linear":
        return Lora(made, bool(config.get("use_rslora")), lambda name: True)
    selection = LoraConfig(
        target_modules=targets,
        exclude_modules=config.get("exclude_modules"),
        layers_to_transform=config.get("layers_to_transform"),
        layers_pattern=config.get("layers_pattern"),
    )
    return Lora(made, bool(config.get("use_rslora")), lambda name: check_target_module_exists(selection, name))


def _refuse_variants(config: dict[str, Any], where: Path) -> None:
    if config.get("peft_type", "LORA") != "LORA":
        raise DataError(f"{where}: peft_type {config['peft_type']} is not read; only LORA is")
    for key, value in config.items():
        if key not in KNOWN_KEYS and value:
            raise DataError(
                f"{where}: {key} = {value!r} is not plain LoRA, which alone is read; if it means nothing for this "
                "adapter, take it out of the file"
            )
    if config.get("bias", "none") != "none":
        raise DataError(f"{where}: bias = {config['bias']!r}: trained biases are not read")
    if config.get("init_lora_weights") not in KNOWN_INITS:
        raise DataError(
            f"{where}: init_lora_weights = {config['init_lora_weights']!r} changes the base weights too; save the "
            "adapter as plain LoRA (PEFT: path_initial_model_for_weight_conversion)"
        )


def _metadata_config(metadata: dict[str, str], where: Path) -> dict[str, Any] | None:
    """The LoRA configuration in a file's metadata, as `save_lora_weights` writes it; None where there is none."""
    for key in METADATA_KEYS:
        if key not in metadata:
            continue
        try:
            config = json.loads(metadata[key])
        except ValueError as error:
            raise DataError(f"{where}: metadata {key} is not JSON ({error})") from None
        if not isinstance(config, dict):
            raise DataError(f"{where}: metadata {key}: expected a JSON object, found {type(config).__name__}")
        own = {name.removeprefix("transformer."): value for name, value in config.items()}
        others = sorted({name.split(".")[0] for name in own if "." in name})
        if others:
            print(f"promptecho: {where}: metadata of {', '.join(others)} is not used", file=sys.stderr, flush=True)
        return {name: value for name, value in own.items() if "." not in name}
    return None


def _has_alphas(tensors: dict[str, torch.Tensor], where: Path) -> bool:
    """Whether the file has alphas: all its pairs, or none.

    Raises:
        DataError: some have one, and others do not.
    """
    bases = [found[1] for key in sorted(tensors) if (found := FOREIGN_PAIR.match(key))]
    without = [base for base in bases if f"{base}.alpha" not in tensors]
    if bases and not without:
        return True
    if len(without) < len(bases):
        raise DataError(f"{where}: {without[0]} has no alpha, others have one; the file is incomplete")
    return False
