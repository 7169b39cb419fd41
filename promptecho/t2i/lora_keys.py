"""What the keys of a LoRA file say, whichever tool wrote them, and which module diffusers takes each pair for.

Names of halves (`lora_A`/`lora_B`, `lora_down`/`lora_up`, `lora.down`/`lora.up`, with or without an adapter's name)
and of prefixes mean the same in every tool, so they are read here. Which module a name means is decided by the
converter of the pinned diffusers, which is called with small probes in place of the weights: its result shows for
each pair where it went, whether its alpha was used, and what diffusers would leave out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from promptecho.config.families import Family
from promptecho.errors import DataError
from promptecho.t2i.diffusers_model import pipeline_class

PAIR = re.compile(r"(?P<base>.+)\.(?P<half>lora_A|lora_B|lora_down|lora_up|lora\.down|lora\.up)"
                  r"(?:\.(?P<adapter>[^.]+))?\.weight")  # fmt: skip
ALPHA = re.compile(r"(?P<base>.+)\.alpha")
DOWN = ("lora_A", "lora_down", "lora.down")

# Prefixes before a dotted name, and before one with underscores (kohya, SimpleTuner's LyCORIS, OneTrainer).
DOTTED = ("base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.")
FLAT = ("lora_unet_", "lycoris_", "lora_transformer_")

_NOT_PLAIN = "which is not plain LoRA on linear layers, and only that is read"
# What else a file may hold, and what is said of it.
OTHER_KINDS = (
    (r"^(text_encoders?|text_encoder_\d|lora_te\d?)[._]", "LoRA of the text encoder, which diffusers leaves out for "
     "this pipeline; what remains would be another adapter"),
    (r"dora_scale|lora_magnitude_vector", f"DoRA, {_NOT_PLAIN} (diffusers leaves its magnitudes out)"),
    (r"\.hada_[wt]", f"LoHa, {_NOT_PLAIN}"),
    (r"\.lokr_", f"LoKr, {_NOT_PLAIN}"),
    (r"\.b?oft_|\.oft\.|\.rescale$", f"OFT, {_NOT_PLAIN}"),
    (r"\.ia3_l|\.on_input$", f"(IA)3, {_NOT_PLAIN}"),
    (r"\.lora_mid\.", f"LoRA with a middle (Tucker) part, {_NOT_PLAIN}"),
    (r"\.(a1|a2|b1|b2|bm)\.weight$", f"GLoRA, {_NOT_PLAIN}"),
    (r"\.(q_layer\.weight|p_layer\.weight|lambda_layer)$", f"T-LoRA, {_NOT_PLAIN}"),
    (r"\.vera_|\.hra_u|\.randlora_|\.fourierft_|\.spectrum", f"another kind of adapter, {_NOT_PLAIN}"),
    (r"\.lora_embedding_", f"LoRA of an embedding, {_NOT_PLAIN}"),
    (r"\.lora_(A|B|up|down)\.(.+\.)?bias$|\.lora\.(up|down)\.bias$|\.lora_bias", f"trained biases, {_NOT_PLAIN}"),
    (r"\.(diff|diff_b|set_weight|w_norm|b_norm|reshape_weight)$", f"changes of whole weights, {_NOT_PLAIN}"),
    (r"scale_weight|scale_input|weight_scale|\.absmax|quant_state|quant_map", "scales of quantised weights, which are "
     "not read; ask for the adapter in bfloat16"),
    (r"modules_to_save", f"modules that were trained whole, {_NOT_PLAIN}"),
)  # fmt: skip


@dataclass(frozen=True)
class RawPair:
    """A pair as the file has it: down [rank, in], up [out, rank], float32; `alpha` is None where it is not told."""

    base: str
    prefix: str
    down: torch.Tensor
    up: torch.Tensor
    alpha: float | None

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def bare(self) -> str:
        """The module's name without the prefix."""
        return self.base.removeprefix(self.prefix)

    def change(self) -> torch.Tensor:
        """What it adds to the weight [out, in], at the strength that the file gives, or 1."""
        return self.up @ self.down * (1.0 if self.alpha is None else self.alpha / self.rank)


class LayerPlace(NamedTuple):
    """The rows `start` to `stop` of pair number `pair`'s `up` belong to a module."""

    pair: int
    start: int
    stop: int


def parse_pairs(tensors: dict[str, torch.Tensor], where: Path) -> list[RawPair]:
    """The pairs of a file, sorted by name.

    Raises:
        DataError: there is anything else in it, nothing, half a pair, or a shape that no linear layer has.
    """
    halves: dict[str, dict[str, torch.Tensor]] = {}
    alphas: dict[str, float] = {}
    others, adapters = [], set()
    for key, value in sorted(tensors.items()):
        if (found := ALPHA.fullmatch(key)) is not None and value.numel() == 1:
            alphas[found["base"]] = float(value)
        elif (found := PAIR.fullmatch(key)) is not None and value.ndim == 2 and not _kind(key):
            half = "down" if found["half"] in DOWN else "up"
            if half in halves.setdefault(found["base"], {}):
                raise DataError(f"{where}: {found['base']} has two {half} weights; one of them was meant for another")
            halves[found["base"]][half] = value
            adapters.add(found["adapter"])
        else:
            others.append(key)
    _refuse_others(others, tensors, where)
    if not halves:
        raise DataError(f"{where}: no weights in it")
    if len(adapters - {None}) > 1:
        names = ", ".join(sorted(adapters - {None}))
        raise DataError(f"{where}: several adapters in one file ({names}); save the one that is meant by itself")
    for base in sorted(set(alphas) - set(halves)):
        raise DataError(f"{where}: {base} has an alpha and no weights; the file is incomplete")
    return [_raw_pair(base, pair, alphas.get(base), where) for base, pair in sorted(halves.items())]


def _kind(key: str) -> str | None:
    return next((what for pattern, what in OTHER_KINDS if re.search(pattern, key)), None)


def _refuse_others(keys: Sequence[str], tensors: dict[str, torch.Tensor], where: Path) -> None:
    if not keys:
        return
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    named = [(key, what) for key in keys if (what := _kind(key)) is not None]
    if named:
        kinds = {what for _, what in named}
        key, what = next(pair for pair in named if pair[1] == min(kinds, key=_rank_of))
        raise DataError(f"{where}: {key}{more}: {what}")
    shape = list(tensors[keys[0]].shape)
    if not any("lora" in key for key in tensors):
        raise DataError(
            f"{where}: {keys[0]} {shape}{more}: no adapter, but weights of a model or of something else; give a LoRA"
        )
    raise DataError(
        f"{where}: {keys[0]} {shape}{more}: not read; only matrices of linear layers are, named lora_A.weight and "
        "lora_B.weight, or lora_down.weight and lora_up.weight"
    )


def _rank_of(what: str) -> int:
    return [kind for _, kind in OTHER_KINDS].index(what)


def _raw_pair(base: str, pair: dict[str, torch.Tensor], alpha: float | None, where: Path) -> RawPair:
    if len(pair) != 2:
        half = "lora_A" if "down" in pair else "lora_B"
        raise DataError(f"{where}: {base} has {half} only; the file is incomplete")
    down, up = pair["down"], pair["up"]
    if down.shape[0] != up.shape[1]:
        ranks = f"{down.shape[0]} in lora_A, {up.shape[1]} in lora_B"
        raise DataError(f"{where}: {base} has two ranks: {ranks}; the file is damaged")
    if 0 in (*down.shape, *up.shape):
        raise DataError(f"{where}: {base} has weights without elements; the file is damaged")
    prefix = next((p for p in (*DOTTED, *FLAT) if base.startswith(p)), "")
    return RawPair(base, prefix, down, up, alpha)


def find_modules(pairs: Sequence[RawPair], family: Family, where: Path) -> dict[str, LayerPlace]:
    """Which module of the transformer each pair is for, by diffusers' own conversion; where diffusers has none for
    pipelines of this family, by diffusers' names behind a prefix.

    Raises:
        DataError: diffusers cannot convert the file, or would leave a pair or an alpha out.
    """
    fused = tuple(f".{name}" for name in family.lora_fused)
    flat = any(pair.prefix in FLAT or pair.bare.endswith(fused) for pair in pairs)
    names = [f"lora_unet_{p.bare.replace('.', '_')}" if flat else f"diffusion_model.{p.bare}" for p in pairs]
    for name, pair in zip(names, pairs, strict=True):
        if names.count(name) > 1:
            raise DataError(f"{where}: {pair.base} is there twice, under two names; save the one that is meant")
    if not family.lora_converted:
        return _as_named(pairs, family, where)
    probes = {}
    for number, (name, pair) in enumerate(zip(names, pairs, strict=True)):
        # Odd numbers name the pair, rows count themselves, and an alpha that is used doubles what it belongs to.
        probes[f"{name}.lora_down.weight"] = torch.full((pair.rank, 1), 2.0 * number + 1)
        probes[f"{name}.lora_up.weight"] = torch.arange(len(pair.up), dtype=torch.float32)[:, None]
        if pair.alpha is not None:
            probes[f"{name}.alpha"] = torch.tensor(2.0 * pair.rank)
    try:
        converted = pipeline_class(family).lora_state_dict(probes)
    except (ValueError, KeyError, AttributeError, RuntimeError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{where}: diffusers cannot convert this LoRA ({reason})") from error
    places: dict[str, LayerPlace] = {}
    rows = [0] * len(pairs)
    for key, value in sorted(converted.items()):
        if not key.endswith(".lora_A.weight"):
            continue
        name = key.removesuffix(".lora_A.weight").removeprefix("transformer.")
        up = converted[f"{key.removesuffix('.lora_A.weight')}.lora_B.weight"]
        mark = int(value[0, 0])
        used = mark % 2 == 0
        number = ((mark // 2 if used else mark) - 1) // 2
        if used != (pairs[number].alpha is not None):
            raise DataError(f"{where}: diffusers leaves out the alpha of {pairs[number].base}; it can't be applied")
        places[name] = LayerPlace(number, int(up[0, 0]), int(up[-1, 0]) + 1)
        rows[number] += len(up)
    for number, pair in enumerate(pairs):
        if rows[number] != len(pair.up) and not _repeats_others(pair, pairs, family):
            raise DataError(f"{where}: diffusers leaves out {pair.base}, and nothing else in the file says the same")
    return places


def _as_named(pairs: Sequence[RawPair], family: Family, where: Path) -> dict[str, LayerPlace]:
    if foreign := [pair for pair in pairs if pair.prefix in FLAT]:
        raise DataError(
            f"{where}: {foreign[0].base}: diffusers does not read such names for {family.title}; convert the file to "
            "diffusers' names (`transformer.` and the layer's name), or give the PEFT folder"
        )
    return {pair.bare: LayerPlace(number, 0, len(pair.up)) for number, pair in enumerate(pairs)}


def _repeats_others(pair: RawPair, pairs: Sequence[RawPair], family: Family) -> bool:
    """Whether a fused pair says what its split neighbours say too, as some trainers write it, so that one is enough."""
    by_base = {other.base: other for other in pairs}
    lasts = {name.rpartition(".")[2]: parts for name, parts in family.lora_fused.items()}
    last = next((last for last in lasts if pair.base.endswith(last)), "")
    block = pair.base[: len(pair.base) - len(last)]
    for names in lasts.get(last, ()):
        if all(f"{block}{name}" in by_base for name in names):
            change = torch.cat([by_base[f"{block}{name}"].change() for name in names])
            own = pair.change()
            return change.shape == own.shape and bool((change - own).norm() <= 1e-3 * own.norm())
    return False
