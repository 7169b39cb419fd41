"""The weights of an adapter that training begins with, for the adapter that a run trains."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import torch

from promptecho.config.training_parts import LoraSection
from promptecho.errors import DataError, counted
from promptecho.t2i.lora import adapted_among, linear_layers
from promptecho.t2i.lora_files import Lora, read_peft


def initial_weights(
    folder: Path, transformer: torch.nn.Module, lora: LoraSection, targets: Mapping[str, Sequence[str]]
) -> dict[str, torch.Tensor]:
    """Weights in float32 by the names of `trained_parameters`, of an adapter folder of ours (`runs/R/N/adapter`, or
    what `promptecho adapter import` writes).

    Args:
        transformer: as it was loaded, without an adapter.
        targets: the family's own lists by `lora.layers`.

    Raises:
        DataError: it cannot be read, or its layers, rank or strength are not those of `lora`; names the keys to set.
    """
    found = read_peft(folder)
    check_initial(found, linear_layers(transformer), lora, targets, folder)
    weights = {}
    for name, pair in sorted(found.pairs.items()):
        weights[f"base_model.model.{name}.lora_A.default.weight"] = pair.down.float()
        weights[f"base_model.model.{name}.lora_B.default.weight"] = pair.up.float()
    return weights


def check_initial(
    found: Lora, linears: Collection[str], lora: LoraSection, targets: Mapping[str, Sequence[str]], where: Path
) -> None:
    """Compare an adapter with that of a run, without any model.

    Args:
        linears: names of all linear layers of the transformer.
        targets: as of `initial_weights`.
        where: what errors call the adapter.

    Raises:
        DataError: layers, rank or strength differ; names the keys to set.
    """
    _check_layers(found, linears, lora, targets, where)
    _check_size(found, lora, where)


def _check_layers(
    found: Lora, linears: Collection[str], lora: LoraSection, targets: Mapping[str, Sequence[str]], folder: Path
) -> None:
    layers = adapted_among(linears, lora, targets)
    odd = sorted(layers ^ found.pairs.keys())
    if not odd:
        return
    has = "the adapter has none" if odd[0] in layers else "the adapter has one, and the run none"
    for key in targets:
        if adapted_among(linears, LoraSection(layers=key), targets) == found.pairs.keys():
            fix = f"set training.lora.layers: {key}, and target_modules: null"
            break
    else:
        fix = f"set training.lora.target_modules: [{', '.join(_endings(found.pairs, linears))}]"
    count = counted(len(odd), "layer has", "layers have")
    raise DataError(
        f"{folder}: training.init_adapter: {count} an adapter in one of the two only, such as {odd[0]} ({has}); {fix}"
    )


def _endings(wanted: Iterable[str], linears: Collection[str]) -> list[str]:
    """Name endings that `training.lora.target_modules` takes for these layers and no others: as short as can be."""
    wanted = set(wanted)
    others = set(linears) - wanted
    endings = set()
    for name in wanted:
        parts = name.split(".")
        tails = [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]
        fits = (tail for tail in tails if not any(f".{other}".endswith(f".{tail}") for other in others))
        endings.add(next(fits, name))
    return sorted(endings)


def _check_size(found: Lora, lora: LoraSection, folder: Path) -> None:
    start = f"{folder}: training.init_adapter: "
    ranks = sorted({pair.rank for pair in found.pairs.values()})
    if len(ranks) > 1:
        raise DataError(f"{start}its layers have several ranks ({', '.join(map(str, ranks))}); a run trains one rank")
    if ranks != [lora.rank]:
        raise DataError(f"{start}its rank is {ranks[0]}, the run's {lora.rank}; set training.lora.rank: {ranks[0]}")
    alphas = sorted({found.strength(name) * lora.rank for name in found.pairs})
    if alphas[-1] - alphas[0] > 1e-6 * abs(alphas[-1]):
        told = ", ".join(f"{alpha:g}" for alpha in alphas[:5])
        raise DataError(f"{start}its layers have several alphas ({told}); a run trains with one")
    if abs(alphas[0] - lora.alpha) > 1e-6 * lora.alpha:
        fix = f"set training.lora.alpha: {alphas[0]:.8g}"
        raise DataError(f"{start}its alpha is {alphas[0]:.8g}, the run's {lora.alpha:g}; {fix}")
