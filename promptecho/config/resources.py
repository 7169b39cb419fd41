"""What the jobs of an experiment ask a cluster for: its size, by stage. A profile says where such jobs go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from promptecho.config.fields import Count, CountOrZero, Section
from promptecho.shipped import SHAPES

if TYPE_CHECKING:
    from promptecho.config.models import ExperimentConfig

Stage = Literal["caption", "train", "generate", "judge", "score"]
Size = Literal["small", "large"]


class StageResources(Section):
    """What each job of a stage asks for. null: as `resources.size` says."""

    gpus_per_node: CountOrZero | None = Field(
        None,
        description="GPUs of each node; of training as many as ranks. null: none where the work takes none, as with "
        "`shapes`.",
    )
    threads: Count | None = Field(None, description="Processors of each process.")
    mem_mb: Count | None = Field(None, description="Memory of each node in MB.")
    runtime: Count | None = Field(
        None,
        description="Time limit of one job in minutes. Captions, training, images and judging that take longer save in "
        "time, are requeued and go on; `score` fails at its limit.",
    )


class TrainResources(StageResources):
    """What each job of training asks for; it runs as nodes x tasks_per_node processes (ranks), one GPU each."""

    nodes: Count | None = Field(None, description="Number of nodes.")
    tasks_per_node: Count | None = Field(None, description="Processes (ranks) on each node, one GPU each.")


class ResourcesSection(Section):
    """What the experiment's jobs ask a cluster for. Changing it makes nothing again. A profile's `set-resources` and
    `set-threads` go before it. On one machine only `threads`, `mem_mb` and `runtime` that are written here count,
    because its GPUs are found (profiles/README.md)."""

    size: Literal["auto", "small", "large"] = Field(
        "auto",
        description="What stages ask for that say nothing themselves. large: real models (training on 4 nodes of 8 "
        "GPUs, as in the paper; 64 GB of memory and a GPU per shard); small: one process and a few GB; auto: small "
        "where both models are `shapes`, else large.",
    )
    caption: StageResources = Field(default_factory=StageResources, description="Each shard of captions.")
    train: TrainResources = Field(default_factory=TrainResources, description="Each segment of training.")
    generate: StageResources = Field(default_factory=StageResources, description="Each shard of images.")
    judge: StageResources = Field(default_factory=StageResources, description="Judging one checkpoint.")
    score: StageResources = Field(default_factory=StageResources, description="Scores of one checkpoint.")


_SMALL = {
    "caption": StageResources(gpus_per_node=1, threads=1, mem_mb=4_000, runtime=240),
    "train": TrainResources(gpus_per_node=1, threads=2, mem_mb=6_000, runtime=240, nodes=1, tasks_per_node=1),
    "generate": StageResources(gpus_per_node=1, threads=1, mem_mb=4_000, runtime=240),
    "judge": StageResources(gpus_per_node=1, threads=1, mem_mb=8_000, runtime=720),
    "score": StageResources(gpus_per_node=1, threads=1, mem_mb=4_000, runtime=120),
}
# Four nodes of eight GPUs are the paper's; eight ranks share a node's processors.
_LARGE = {
    "caption": StageResources(gpus_per_node=1, threads=8, mem_mb=64_000, runtime=240),
    "train": TrainResources(gpus_per_node=8, threads=8, mem_mb=800_000, runtime=1_440, nodes=4, tasks_per_node=8),
    "generate": StageResources(gpus_per_node=1, threads=8, mem_mb=64_000, runtime=240),
    "judge": StageResources(gpus_per_node=1, threads=1, mem_mb=8_000, runtime=720),
    "score": StageResources(gpus_per_node=1, threads=1, mem_mb=32_000, runtime=120),
}
PRESETS: dict[Size, dict[Stage, StageResources]] = {"small": _SMALL, "large": _LARGE}


def size_of(config: ExperimentConfig) -> Size:
    """The size of an experiment's jobs: what it says, or what its models are."""
    if config.resources.size != "auto":
        return config.resources.size
    runs = [run.reward_vlm for run in config.runs.values() if run.reward_vlm is not None]
    models = [config.models.t2i, config.models.vlm, *runs]
    return "small" if all(model.path == SHAPES for model in models) else "large"


def cluster_resources(config: ExperimentConfig, stage: Stage, on_gpu: bool) -> StageResources:
    """What a job of `stage` asks a cluster for, no key of it null.

    Args:
        on_gpu: whether its work takes a GPU; where it does not, it asks for one only if the experiment says so.
    """
    asked = getattr(config.resources, stage)
    preset = PRESETS[size_of(config)][stage]
    values = {key: value for key, value in asked.model_dump().items() if value is not None}
    gpus = {} if on_gpu else {"gpus_per_node": 0}
    if stage == "train" and on_gpu:  # one GPU per rank, so that either number says the other
        one = values.get("gpus_per_node", values.get("tasks_per_node"))
        gpus = {} if not one else {"gpus_per_node": one, "tasks_per_node": one}
    return preset.model_copy(update=gpus | values)
