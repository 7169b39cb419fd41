"""What becomes of `reward_placement.gather: auto`: how often GPUs that share a VLM gather its weights.

Every token of a reply that the VLM writes is a pass, so that with `layer` each token moves nearly the whole VLM to each
GPU. `phase` moves it once for each reward phase, and needs room for all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from promptecho.config import ExperimentConfig, run_rewards, run_training
from promptecho.config.rewards import writes_sharded

Room = Callable[[ExperimentConfig], float | None]  # GB that a GPU lacks in the reward phase; None: no such layout


def with_placement(config: ExperimentConfig, run: str, **update: Any) -> ExperimentConfig:
    training = run_training(config, run)
    placement = training.reward_placement.model_copy(update=update)
    changed = training.model_copy(update={"reward_placement": placement})
    return config.model_copy(update={"runs": {**config.runs, run: changed}})


def decided(config: ExperimentConfig, run: str, processes: int, lacks: Room) -> ExperimentConfig:
    """The configuration with `layer` or `phase` in place of `auto`; with `auto` where a run is to be refused."""
    placement = run_training(config, run).reward_placement
    if placement.gather != "auto":
        return config
    if not writes_sharded(run_rewards(config, run), placement, processes):
        return with_placement(config, run, gather="layer")
    tried = with_placement(config, run, gather="phase")
    return tried if (lacks(tried) or 0.0) <= 0 else config


def refusal(config: ExperimentConfig, run: str, processes: int, lacks: Room, token_gb: float) -> str:
    """Why a run whose `gather` is still `auto` can't be, with what to change; "" where it is decided.

    Args:
        token_gb: GB that come to each GPU for every token.
    """
    placement = run_training(config, run).reward_placement
    if placement.gather != "auto":
        return ""
    names = writes_sharded(run_rewards(config, run), placement, processes)
    missing = lacks(with_placement(config, run, gather="phase"))
    ways = [text for text, changed in _ways(config, run) if (room := lacks(changed)) is not None and room <= 0]
    key = "training.reward_placement"
    return (
        f"run {run}: {names} lets the VLM write its replies token by token; gathered once for the reward phase its "
        f"weights need {missing or 0.0:.1f} GB more than a GPU has, and gathered layer by layer each token brings "
        f"{token_gb:.3g} GB to each GPU; set {key}."
        f"{f' or {key}.'.join([*ways, 'gather: layer, if that may take its time'])}"
    )


def _ways(config: ExperimentConfig, run: str) -> Iterator[tuple[str, ExperimentConfig]]:
    """Placements in which no token moves weights, those that change least first."""
    yield "mode: replicated", with_placement(config, run, mode="replicated")
    yield "mode: offloaded", with_placement(config, run, mode="offloaded", gather="phase")
    yield "mode: dedicated with per_node: 1", with_placement(config, run, mode="dedicated", per_node=1)
