"""What a plan says, as records: for whom, each run, all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from promptecho.config import ExperimentConfig
from promptecho.plan.captioning import Captioning
from promptecho.plan.evaluation import Evaluation
from promptecho.plan.gpus import Gpu
from promptecho.plan.memory import GpuMemory
from promptecho.plan.phases import PlannedPhase
from promptecho.plan.settings import Settings

NO_VLM = "none"  # in place of a model's path


@dataclass(frozen=True)
class Cluster:
    """`nodes` x `per_node` GPUs of one kind."""

    gpu: Gpu
    nodes: int
    per_node: int

    @property
    def gpus(self) -> int:
        return self.nodes * self.per_node

    def with_per_node(self, per_node: int) -> Cluster:
        return replace(self, per_node=per_node)


@dataclass(frozen=True)
class ModeCost:
    """A mode of activation checkpointing: bytes of a GPU that trains in the update, FLOPs of one micro-batch's forward
    and backward pass, how many of these compute something again, and whether the update fits with it."""

    mode: str
    bytes: int
    flops: int
    again: int
    fits: bool


@dataclass(frozen=True)
class UsualSize:
    """What a run that trains on images of other sizes would take with those of `models.t2i`: height and width, seconds
    of an iteration, peak bytes of the GPU that needs most."""

    size: tuple[int, int]
    seconds: float
    peak: int


@dataclass(frozen=True)
class RunPlan:
    """One run. `heldout_seconds` is what held-out evaluations add to an iteration on average; `checkpointing` the mode
    of activation checkpointing that is planned, and `modes` what each would take; `gather` how often a shared VLM is
    gathered."""

    run: str
    iterations: int
    placement: str
    sharing: int  # GPUs that hold one copy of the reward's VLM together
    zero_stage: int
    models: dict[str, str]
    memory: list[GpuMemory]
    host_bytes: int
    phases: list[PlannedPhase]
    heldout_seconds: float
    gpus: int
    checkpointing: str
    modes: list[ModeCost]
    gather: str
    sizes: list[tuple[int, int]]  # heights and widths of training images
    usual_size: UsualSize | None  # None: that is their one size

    @property
    def seconds(self) -> float:
        """Of an iteration, its share of held-out evaluations included."""
        return sum(phase.seconds for phase in self.phases) + self.heldout_seconds

    @property
    def hours(self) -> float:
        return self.iterations * self.seconds / 3600

    def facts(self) -> dict[str, Any]:
        return {
            "run": self.run, "iterations": self.iterations, "reward_placement": self.placement,
            "gather": self.gather,
            "gpus_that_share_the_vlm": self.sharing, "zero_stage": self.zero_stage, "models": self.models,
            "memory": [memory.facts() for memory in self.memory], "host_bytes_per_node": self.host_bytes,
            "phases": [asdict(phase) for phase in self.phases],
            "flops_per_iteration": sum(phase.flops for phase in self.phases),
            "heldout_seconds_per_iteration": self.heldout_seconds, "seconds_per_iteration": self.seconds,
            "hours": self.hours, "gpu_hours": self.hours * self.gpus,
            "activation_checkpointing": self.checkpointing, "activation_checkpointing_modes":
            [asdict(one) for one in self.modes],
            "sizes": self.sizes, "at_the_size_of_models_t2i": asdict(self.usual_size) if self.usual_size else None,
        }  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """All runs and image sets of an experiment. `problems`: what does not fit and what to change, one line each.
    `not_counted`: what these runs and guards ask for and no figure has, in words."""

    experiment: str
    cluster: Cluster
    settings: Settings
    runs: list[RunPlan]
    generation: dict[str, GpuMemory]
    evaluations: list[Evaluation]
    captions: Captioning | None  # None: the experiment brings its prompts, or a server elsewhere captions
    problems: list[str]
    not_counted: list[str]

    def facts(self) -> dict[str, Any]:
        """What `--json` prints; bytes, FLOPs, seconds, hours."""
        return {
            "experiment": self.experiment,
            "cluster": asdict(self.cluster) | {"gpus": self.cluster.gpus},
            "assumptions": asdict(self.settings),
            "runs": [run.facts() for run in self.runs],
            "generation_memory": {name: memory.facts() for name, memory in self.generation.items()},
            "evaluations": [asdict(evaluation) for evaluation in self.evaluations],
            "captions": self.captions.facts() if self.captions else None,
            "fits": not self.problems,
            "problems": self.problems,
            "not_counted": self.not_counted,
        }


# The peak in GB with which a run of a changed configuration fits, None where it does not.
Fits = Callable[[ExperimentConfig, Cluster], float | None]
