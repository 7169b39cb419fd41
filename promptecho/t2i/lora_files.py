"""LoRA weights in the formats of PEFT, diffusers and other trainers, read into one form."""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from promptecho.config.families import Family
from promptecho.errors import ConfigError, DataError
from promptecho.foreign import START, other_kind
from promptecho.pointers import pointer_problem
from promptecho.t2i.lora_keys import ALPHA, find_modules, parse_pairs
from promptecho.text_files import read_text

PEFT_CONFIG, PEFT_FILE = "adapter_config.json", "adapter_model.safetensors"
DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
METADATA_KEY = "lora_adapter_metadata"

# Keys of PEFT's configuration that say nothing on what the adapter computes, or that are read here.
KNOWN_KEYS = {
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "target_modules", "exclude_modules",
    "layers_to_transform", "layers_pattern", "lora_dropout", "init_lora_weights", "bias", "eva_config", "loftq_config",
    "megatron_core", "qalora_group_size", "runtime_config", "ensure_weight_tying",
}  # fmt: skip
# The others change the base weights at the start, so that A and B alone are not the adapter.
KNOWN_INITS = (None, True, False, "gaussian", "orthogonal", "eva")


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
    """An adapter: its pairs by module name, and which modules its configuration says it has.

    `note` says where an alpha was taken from that the source does not give; empty where it gives all.
    """

    pairs: dict[str, Pair]
    use_rslora: bool = False
    targets: Callable[[str], Any] = lambda name: False
    note: str = ""

    def strength(self, name: str) -> float:
        """What up @ down is multiplied with: alpha / rank, or alpha / sqrt(rank) where it is rank-stabilised."""
        pair = self.pairs[name]
        return pair.alpha / (math.sqrt(pair.rank) if self.use_rslora else pair.rank)


def read_peft(folder: Path) -> Lora:
    """Read a PEFT folder.

    Raises:
        DataError: damaged, not plain LoRA, or weights and configuration disagree.
    """
    config = _read_config(folder / PEFT_CONFIG)
    if isinstance(config, dict):
        _refuse_variants(config, folder / PEFT_CONFIG)
    tensors, _ = read_tensors(folder / PEFT_FILE)
    lora = peft_lora(tensors, config, folder / PEFT_FILE, folder / PEFT_CONFIG)
    if config.get("target_modules") and (stray := [name for name in sorted(lora.pairs) if not lora.targets(name)]):
        raise DataError(
            f"{folder / PEFT_CONFIG}: does not target {stray[0]}, for which there are weights that PEFT leaves out"
        )
    return lora


def _read_config(path: Path) -> Any:
    """A PEFT configuration, which another tool wrote: it cannot be made again here."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error}); take it once more from where the adapter is from") from None


def peft_lora(tensors: dict[str, torch.Tensor], config: Any, where: Path, config_path: Path) -> Lora:
    """The adapter of PEFT's weights by name and its configuration, each with the place that errors name."""
    pairs = {}
    for raw in parse_pairs(tensors, where):
        if raw.alpha is not None:
            raise DataError(f"{where}: {raw.base} has an alpha here, and PEFT takes it from {PEFT_CONFIG} alone")
        pairs[raw.base.removeprefix("base_model.model.")] = Pair(raw.down, raw.up, float(raw.rank))
    return _with_config(pairs, config, config_path)


def read_lora_file(path: Path, family: Family, alpha: float | None = None) -> Lora:
    """Read one LoRA file as diffusers' pipelines do, whichever tool wrote it.

    Alpha comes from the file's metadata or from its `.alpha` entries. Where a module has neither, it is its rank,
    strength 1, as diffusers and ComfyUI take it; `note` says so.

    Args:
        alpha: what the adapter was trained with, for a file that does not contain it.

    Raises:
        ConfigError: `alpha` is given, but the file tells it, or its modules have different ranks.
        DataError: damaged, not plain LoRA, or diffusers would leave a part of it out.
    """
    tensors, metadata = read_tensors(path)
    raw = parse_pairs(tensors, path)
    prefixes = {pair.prefix for pair in raw}
    config = _metadata_config(metadata, prefixes == {""}, path)
    told = sum(pair.alpha is not None for pair in raw)
    if alpha is not None:
        some = f" for {told} of its {len(raw)} pairs, and others take the rest at strength 1" if told < len(raw) else ""
        known = None if config is None and not told else "" if config is not None else some
        _check_given_alpha(alpha, known, Counter(pair.rank for pair in raw), path)
    if {"", "transformer."} <= prefixes:
        first = next(pair.base for pair in raw if pair.prefix == "")
        raise DataError(f"{path}: {first} does not start with `transformer.` as others do; diffusers leaves it out")
    if prefixes == {"base_model.model."} and config is None and not told and alpha is None:
        raise DataError(
            f"{path}: PEFT's weights without their {PEFT_CONFIG}, which tells alpha; give the folder with both, or "
            "alpha as it was trained with (--alpha; `alpha:` beside `adapter:` in the configuration)"
        )
    pairs = {}
    for name, place in find_modules(raw, family, path).items():
        one = raw[place.pair]
        own = one.alpha if one.alpha is not None else alpha if alpha is not None else one.rank
        up = one.up[place.start : place.stop]
        # A sign of alpha goes into the weights: diffusers' own conversion never ends on a negative one.
        # Copies, because safetensors refuses to write tensors that share memory, as parts of a fused pair do.
        pairs[name] = Pair(one.down.clone(), -up if own < 0 else up.clone(), abs(float(own)))
    if config is not None:
        return _with_config(pairs, config, path)
    note = ""
    if alpha is None and told < len(raw):
        which = "no alpha in it" if not told else f"no alpha for {len(raw) - told} of its {len(raw)} pairs"
        note = f"{which}: strength 1 there, as diffusers takes it"
    return Lora(pairs, note=note)


def _check_given_alpha(alpha: float, told: str | None, ranks: Counter[int], where: Path) -> None:
    """`told`: None where the file tells no alpha, otherwise for what it does."""
    if not (math.isfinite(alpha) and alpha > 0):
        raise ConfigError(f"{where}: alpha {alpha:g}: it must be a number above 0")
    if told is not None:
        raise ConfigError(f"{where} tells alpha{told}; leave --alpha (`alpha:` in the configuration) out")
    if len(ranks) > 1:
        each = ", ".join(f"{alpha / rank:g} for {count} pairs of rank {rank}" for rank, count in ranks.most_common())
        raise ConfigError(
            f"{where}: alpha {alpha:g} would be another strength for each rank ({each}); leave it out for "
            "strength 1 everywhere, or give the PEFT folder, whose configuration tells alpha for each module"
        )


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of a safetensors file, in float32, and its metadata.

    Raises:
        DataError: the file is damaged or missing, or its numbers are not floating-point ones.
    """
    tensors = {}
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            for key in sorted(file.keys()):
                tensor = file.get_tensor(key)
                if not tensor.is_floating_point() and ALPHA.fullmatch(key) is None:
                    kind = str(tensor.dtype).removeprefix("torch.")
                    raise DataError(f"{path}: {key} is {kind}: quantised weights are not read; ask for bfloat16")
                tensors[key] = tensor.float()
    except (SafetensorError, OSError, AttributeError, RuntimeError, ValueError) as error:
        raise DataError(f"{path}: {_unreadable(path, error)}") from error
    return tensors, metadata


def _unreadable(path: Path, error: Exception) -> str:
    """What a file is that safetensors can't read, and what to do."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(START)
    except OSError as failure:
        return f"cannot be read ({failure.strerror})"
    if problem := pointer_problem(path):
        return problem
    if start.startswith((b"PK\x03\x04", b"\x80")) and start[1:2] in (b"K", b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a pickle in spite of its name, and loading one runs code; ask for the adapter as safetensors"
    if other := other_kind(start, "the weights"):
        return other
    reason = " ".join(str(error).split())[:200]
    return f"not a readable safetensors file ({reason}); download it again"


def _with_config(pairs: dict[str, Pair], config: Any, where: Path) -> Lora:
    """Give the pairs their alpha by PEFT's rules, and check that weights and configuration agree.

    A pair's own alpha / rank is multiplied with it, as diffusers does with a file that has both.
    """
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists
    from peft.utils.other import get_pattern_key

    if not isinstance(config, dict):
        raise DataError(f"{where}: expected a JSON object, found {type(config).__name__}")
    _refuse_variants(config, where)
    _check_settings(config, where)
    ranks: dict[str, Any] = config.get("rank_pattern") or {}
    alphas: dict[str, Any] = config.get("alpha_pattern") or {}
    made = {}
    for name, pair in pairs.items():
        rank = ranks.get(get_pattern_key(list(ranks), name), config["r"])
        if rank != pair.rank:
            raise DataError(f"{where}: {name} has rank {pair.rank} in the weights, {rank} in the configuration")
        key = get_pattern_key(list(alphas), name)
        alpha = float(alphas[key] if key in alphas else config["lora_alpha"])
        made[name] = replace(pair, alpha=alpha * (pair.alpha / pair.rank))
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


def _check_settings(config: dict[str, Any], where: Path) -> None:
    """All that decides strength and modules is of the kinds that PEFT writes.

    Raises:
        DataError: some of it is not; names all such keys.
    """

    def is_number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    def is_pattern(value: Any) -> bool:
        try:
            return isinstance(value, str) and bool(re.compile(value))
        except re.error:
            return False

    def is_names(value: Any) -> bool:
        return is_pattern(value) or (isinstance(value, list) and all(isinstance(name, str) for name in value))

    if not is_number(config.get("lora_alpha")) or not is_number(config.get("r")):
        raise DataError(f"{where}: r and lora_alpha must be numbers; the adapter's strength is lora_alpha / r")
    problems = []
    for key in ("rank_pattern", "alpha_pattern"):
        value = config.get(key) or {}
        if not isinstance(value, dict) or not all(is_pattern(k) and is_number(v) for k, v in value.items()):
            problems.append(f"{key} must map regular expressions to numbers")
    for key in ("target_modules", "exclude_modules", "layers_pattern"):
        if config.get(key) and not is_names(config[key]):
            problems.append(f"{key} must be a regular expression or a list of names")
    layers = config.get("layers_to_transform") or []
    if not all(isinstance(layer, int) for layer in (layers if isinstance(layers, list) else [layers])):
        problems.append("layers_to_transform must be whole numbers")
    if not isinstance(config.get("use_rslora"), bool | None):
        problems.append("use_rslora must be true or false")
    if problems:
        raise DataError(f"{where}: {'; '.join(problems)}: take the file once more from where the adapter is from")


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


def _metadata_config(metadata: dict[str, str], bare: bool, where: Path) -> dict[str, Any] | None:
    """The LoRA configuration in a file's metadata, as diffusers writes it; None where there is none.

    `bare`: the weights' names have no prefix, as a model's own `save_lora_adapter` writes them; a pipeline prefixes
    names and metadata with `transformer.`.
    """
    if not metadata.get(METADATA_KEY):
        return None
    try:
        config = json.loads(metadata[METADATA_KEY])
    except ValueError as error:
        raise DataError(f"{where}: metadata {METADATA_KEY} is not JSON ({error})") from None
    if not isinstance(config, dict):
        raise DataError(f"{where}: metadata {METADATA_KEY}: expected a JSON object, found {type(config).__name__}")
    own = {
        name.removeprefix("transformer."): value for name, value in config.items() if name.startswith("transformer.")
    }
    if not own and bare:
        return config
    if not own or bare:
        raise DataError(f"{where}: metadata {METADATA_KEY} and weights differ in the prefix `transformer.`; diffusers "
                        "could not put them together")  # fmt: skip
    others = sorted({name.split(".")[0] for name in config if not name.startswith("transformer.")})
    if others:
        print(f"promptecho: {where}: metadata of {', '.join(others)} is not used", file=sys.stderr, flush=True)
    return own
