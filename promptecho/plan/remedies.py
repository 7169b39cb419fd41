"""What to change where a run does not fit: changes are tried, and only those are named with which it fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from promptecho.config import ExperimentConfig, needs_vlm, run_rewards, run_training
from promptecho.phases import Phase
from promptecho.plan.checkpointing import modes_of
from promptecho.plan.memory import GpuMemory
from promptecho.plan.result import Cluster, Fits, RunPlan

NAMED = 3  # remedies in a message
Edit = Callable[[ExperimentConfig, Cluster], tuple[ExperimentConfig, Cluster]]


def remedy(config: ExperimentConfig, cluster: Cluster, run: str, plan: RunPlan, fits: Fits) -> str:
    """One half-sentence: single changes with which the run fits, or else the first few that do together.

    Args:
        fits: the peak in GB with which a run of a changed configuration fits, None where it does not.
    """
    changes = list(candidates(config, cluster, run, plan))
    alone = []
    for text, change in changes:
        if (peak := fits(*change(config, cluster))) is not None:
            alone.append(f"{text} (then {peak:.1f} GB)")
        if len(alone) == NAMED:
            break
    if alone:
        return " or ".join(alone)
    together, changed = [], (config, cluster)
    for text, change in changes:
        changed = change(*changed)
        together.append(text)
        if (peak := fits(*changed)) is not None:
            return f"{' and '.join(together)} (then {peak:.1f} GB)"
    return "no setting makes it fit: take GPUs with more memory, or smaller models"


def candidates(config: ExperimentConfig, cluster: Cluster, run: str, plan: RunPlan) -> Iterator[tuple[str, Edit]]:
    """Changes that lower the peak, those that cost least first: (what to do, the change)."""
    training = run_training(config, run)
    worst: GpuMemory = max(plan.memory, key=lambda memory: memory.peak)
    phase, placement = worst.peak_phase, training.reward_placement
    if placement.mode == "replicated" and cluster.per_node > 1:
        yield _training(run, "set training.reward_placement.mode: colocated", reward_placement={"mode": "colocated"})
    if phase == Phase.DECODE and not config.models.t2i.vae_slicing:
        yield _t2i("set models.t2i.vae_slicing: true", vae_slicing=True)
    if phase == Phase.UPDATE:
        modes = modes_of(training)
        for mode in modes[modes.index(training.activation_checkpointing) + 1 :]:
            text = f"set training.activation_checkpointing: {mode}"
            yield _training(run, text, activation_checkpointing=mode)
    if phase in (Phase.UPDATE, Phase.PRECOMPUTE):
        for size in _halves(training.micro_batch_size):
            yield _training(run, f"set training.micro_batch_size: {size}", micro_batch_size=size)
    if phase in (Phase.SAMPLE, Phase.DECODE):
        for size in _halves(training.sampling.batch_size):
            yield _training(run, f"set training.sampling.batch_size: {size}", sampling={"batch_size": size})
    if phase == Phase.REWARD and placement.gather == "phase":
        text = "set training.reward_placement.gather: layer"
        yield _training(run, text, reward_placement={"gather": "layer"})
    if phase == Phase.REWARD:
        for size in _halves(max(entry.batch_size for entry in run_rewards(config, run))):
            yield _rewards(run, size)
    if worst.who == "reward server":
        for servers in range(placement.per_node + 1, cluster.per_node):
            text = f"set training.reward_placement.per_node: {servers}"
            yield _training(run, text, reward_placement={"per_node": servers})
    if placement.mode != "offloaded" and needs_vlm(config, run):
        yield _training(run, "set training.reward_placement.mode: offloaded", reward_placement={"mode": "offloaded"})
    if training.zero_stage != 3 and not training.has_several_sizes and cluster.gpus > 1 and worst.who == "trainer":
        yield _training(run, "set training.zero_stage: 3", zero_stage=3)
    if phase == Phase.DECODE and not config.models.t2i.vae_tiling:
        yield _t2i("set models.t2i.vae_tiling: true", vae_tiling=True)
    if placement.mode == "colocated" and cluster.per_node < 8:
        yield _per_node(8)
    if training.finetuning == "full" and worst.who == "trainer":
        yield _training(run, "set training.finetuning: lora", finetuning="lora")


def _halves(size: int) -> list[int]:
    """Divisors of a batch size below it, the largest first: what divided evenly still does."""
    return [n for n in range(size - 1, 0, -1) if size % n == 0]


def _training(run: str, text: str, **update: Any) -> tuple[str, Edit]:
    def change(config: ExperimentConfig, cluster: Cluster) -> tuple[ExperimentConfig, Cluster]:
        training = run_training(config, run)
        values = {
            key: getattr(training, key).model_copy(update=value) if isinstance(value, dict) else value
            for key, value in update.items()
        }
        runs = {**config.runs, run: training.model_copy(update=values)}
        return config.model_copy(update={"runs": runs}), cluster

    return text, change


def _rewards(run: str, size: int) -> tuple[str, Edit]:
    def change(config: ExperimentConfig, cluster: Cluster) -> tuple[ExperimentConfig, Cluster]:
        entries = [
            entry.model_copy(update={"batch_size": min(size, entry.batch_size)}) for entry in run_rewards(config, run)
        ]
        runs = {**config.runs, run: run_training(config, run).model_copy(update={"rewards": entries})}
        return config.model_copy(update={"runs": runs}), cluster

    return f"set batch_size: {size} in rewards", change


def _t2i(text: str, **update: Any) -> tuple[str, Edit]:
    def change(config: ExperimentConfig, cluster: Cluster) -> tuple[ExperimentConfig, Cluster]:
        t2i = config.models.t2i.model_copy(update=update)
        return config.model_copy(update={"models": config.models.model_copy(update={"t2i": t2i})}), cluster

    return text, change


def _per_node(per_node: int) -> tuple[str, Edit]:
    def change(config: ExperimentConfig, cluster: Cluster) -> tuple[ExperimentConfig, Cluster]:
        return config, cluster.with_per_node(per_node)

    return f"use {per_node} GPUs on each node", change
