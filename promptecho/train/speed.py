"""How much of a GPU's speed an iteration reaches: the FLOPs that the plan counts, over the seconds that were measured.

- TFLOP/s of a phase: FLOPs of its useful work on all GPUs, over its seconds and the number of GPUs.
- MFU (model FLOPs utilization; PaLM, arXiv 2204.02311, appendix B): the seconds that this work would take at the rates
  of the GPU's datasheet, each number format at its own, over the measured ones. What activation checkpointing computes
  again counts as no work.
- HFU (hardware FLOPs utilization): the same, with what is computed again.

A GPU whose datasheet is not known has TFLOP/s and no MFU. docs/performance.md says more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from promptecho.config.training import TrainingConfig
from promptecho.phases import MEASURED, Phase

DIGITS = 4  # that count


@dataclass(frozen=True)
class Effort:
    """FLOPs, and the seconds that one GPU would take for them at its datasheet's rates (None: no datasheet)."""

    flops: int
    ideal_s: float | None

    def times(self, n: int) -> Effort:
        return Effort(n * self.flops, None if self.ideal_s is None else n * self.ideal_s)

    def __add__(self, other: Effort) -> Effort:
        known = self.ideal_s is not None and other.ideal_s is not None
        return Effort(self.flops + other.flops, self.ideal_s + other.ideal_s if known else None)  # type: ignore[operator]


@dataclass(frozen=True)
class Work:
    """What an iteration takes, on all GPUs together, by phase; of precompute, one set of passes (`reference_sets`).

    `computed` is `useful` with what activation checkpointing computes again. A phase whose work can't be known, such as
    replies of any length, is in neither. `gpu`: whose datasheet it is, None where none is known.
    """

    useful: Mapping[Phase, Effort]
    computed: Mapping[Phase, Effort]
    gpu: str | None = None


def reference_sets(training: TrainingConfig, iteration: int) -> int:
    """With how many sets of weights `precompute` goes through an iteration's images (the first iteration is 0): the
    policy's, those of its moving average once that is another, the base model's."""
    moved = iteration > 0 and training.kl_ema.decay > 0
    sampled_by_average = moved and training.sampling.policy == "ema"
    of_average = sampled_by_average or (moved and training.kl_ema.weight > 0)
    return (not sampled_by_average) + of_average + (training.kl_base.weight > 0)


def rates(
    work: Work, seconds: Mapping[str, Any], *, sets: int, trainers: int, gpus: int, beside: bool = False
) -> dict[str, float]:
    """Keys tflops_PHASE, mfu_PHASE and, where something is computed again, hfu_PHASE; the same without a phase for the
    whole iteration, where the work of all its phases is known.

    Args:
        seconds: keys seconds_PHASE and seconds of the iteration's row; held-out evaluations are taken off the whole.
        sets: `reference_sets` of the iteration.
        trainers: GPUs that train.
        gpus: all; where it is more, rewards come from the others while images are sampled, and have no rate of their
            own.
        beside: rewards are computed on the same GPUs while images are sampled; likewise.
    """
    found: dict[str, float] = {}
    useful, computed = Effort(0, 0.0), Effort(0, 0.0)
    for phase in MEASURED:
        if phase not in work.useful:
            continue
        n = sets if phase is Phase.PRECOMPUTE else 1
        one, with_again = work.useful[phase].times(n), work.computed[phase].times(n)
        useful, computed = useful + one, computed + with_again
        if phase is not Phase.REWARD or (gpus == trainers and not beside):
            found |= _named(f"_{phase}", one, with_again, seconds.get(f"seconds_{phase}", 0.0) * trainers)
    if all(phase in work.useful for phase in MEASURED):
        found |= _named("", useful, computed, (seconds["seconds"] - seconds.get("seconds_heldout", 0.0)) * gpus)
    return found


def _named(suffix: str, useful: Effort, computed: Effort, gpu_seconds: float) -> dict[str, float]:
    if gpu_seconds <= 0:
        return {}
    found = {f"tflops{suffix}": _rounded(useful.flops / gpu_seconds / 1e12)}
    if useful.ideal_s is not None:
        found[f"mfu{suffix}"] = _rounded(useful.ideal_s / gpu_seconds)
    if computed.ideal_s is not None and computed.flops != useful.flops:
        found[f"hfu{suffix}"] = _rounded(computed.ideal_s / gpu_seconds)
    return found


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
