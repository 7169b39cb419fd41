"""The section `resources`: what the jobs of an experiment ask a cluster for. A profile says where such jobs go."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from promptecho.config.fields import Count, CountOrZero, Section


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

    @model_validator(mode="after")
    def _one_gpu_each(self) -> Self:
        gpus, ranks = self.gpus_per_node, self.tasks_per_node
        if gpus and ranks and gpus < ranks:
            raise ValueError(
                f"gpus_per_node {gpus} is less than tasks_per_node {ranks}: each process takes a GPU of its own; give "
                "one of the two, and the other is the same"
            )
        return self


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
    guard: StageResources = Field(
        default_factory=StageResources,
        description="One guard's scores of a checkpoint; with `size: auto` large where the guard's own model is real.",
    )
