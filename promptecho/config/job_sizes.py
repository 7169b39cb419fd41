"""What a job of each stage asks a cluster for, by what its experiment says in `resources` and by its models."""

from __future__ import annotations

from typing import Literal

from promptecho.config.descriptors import ModelOptions
from promptecho.config.guards import guard_entry
from promptecho.config.judge_kinds import judge_kind
from promptecho.config.load import reward_vlm, run_vlms
from promptecho.config.models import ExperimentConfig
from promptecho.config.resources import StageResources, TrainResources
from promptecho.config.scorers import backend_of
from promptecho.shipped import is_shipped

Stage = Literal["caption", "train", "generate", "judge", "score", "guard"]
Size = Literal["small", "large"]

_SMALL: dict[Stage, StageResources] = {
    "caption": StageResources(gpus_per_node=1, threads=1, mem_mb=4_000, runtime=240),
    "train": TrainResources(gpus_per_node=1, threads=2, mem_mb=6_000, runtime=240, nodes=1, tasks_per_node=1),
    "generate": StageResources(gpus_per_node=1, threads=1, mem_mb=4_000, runtime=240),
    "judge": StageResources(gpus_per_node=1, threads=1, mem_mb=8_000, runtime=720),
    "score": StageResources(gpus_per_node=1, threads=1, mem_mb=4_000, runtime=120),
    "guard": StageResources(gpus_per_node=1, threads=1, mem_mb=4_000, runtime=240),
}
# Four nodes of eight GPUs are the paper's; eight ranks share a node's processors.
_LARGE: dict[Stage, StageResources] = {
    "caption": StageResources(gpus_per_node=1, threads=8, mem_mb=64_000, runtime=240),
    "train": TrainResources(gpus_per_node=8, threads=8, mem_mb=800_000, runtime=1_440, nodes=4, tasks_per_node=8),
    "generate": StageResources(gpus_per_node=1, threads=8, mem_mb=64_000, runtime=240),
    "judge": StageResources(gpus_per_node=1, threads=1, mem_mb=8_000, runtime=720),
    "score": StageResources(gpus_per_node=1, threads=1, mem_mb=32_000, runtime=120),
    "guard": StageResources(gpus_per_node=1, threads=8, mem_mb=64_000, runtime=240),
}
PRESETS: dict[Size, dict[Stage, StageResources]] = {"small": _SMALL, "large": _LARGE}
# A judge that is a model in the job is loaded into the machine's memory before it goes to the GPU, as captions' is; one
# behind an endpoint takes none.
_MODEL_THAT_JUDGES = {"threads": 8, "mem_mb": 64_000}
_ASKS_A_SERVER = {"threads": 4, "mem_mb": 8_000}  # captions that a server elsewhere writes: images are read and sent


def size_of(config: ExperimentConfig) -> Size:
    """The size of an experiment's jobs: what it says, or what its models are."""
    if config.resources.size != "auto":
        return config.resources.size
    own = [run.reward_vlm.path for run in config.runs.values() if run.reward_vlm is not None]
    own += [one.path for run in config.runs for one in run_vlms(config, run).values()]
    paths = [config.models.t2i.path, config.models.vlm.path, *own]
    return "small" if all(map(is_shipped, paths)) else "large"


def takes_gpu(config: ExperimentConfig, stage: Stage, name: str = "") -> bool:
    """Whether the work of a stage takes a GPU, as that of real models does.

    Args:
        name: of the run where the stage is `train`, of the benchmark where it is `judge` or `score`, and
            of the column where it is `guard`.
    """
    if stage == "train":
        paths = [config.models.t2i.path, *(vlm.path for vlm in run_vlms(config, name).values())]
        return not all(map(is_shipped, paths))
    if stage == "judge":
        judge = config.judges.models.get(config.benchmarks[name].judge or "")
        return judge is not None and judge_kind(judge.kind).in_process and not is_shipped(judge.model)
    if stage == "score":
        return backend_of(config.benchmarks[name]).uses_gpu
    if stage == "guard":  # a reward that names no VLM may bring a model of its own
        guard = guard_entry(config, name)[1]
        found = guard.options if isinstance(guard.options, ModelOptions) else reward_vlm(config, guard)
        return found is None or not is_shipped(found.path)
    if stage == "caption":
        return not asks_elsewhere(config) and not is_shipped(config.models.vlm.path)
    return not is_shipped(config.models.t2i.path)


def asks_elsewhere(config: ExperimentConfig) -> bool:
    """Whether a server that runs somewhere else writes the captions, so that their jobs load no model."""
    return config.captions.server is not None and config.captions.server.endpoint is not None


def as_reader(config: ExperimentConfig) -> ExperimentConfig:
    """The experiment for a job whose VLM reads prompts word by word (rule sample_words): it asks for what captioning
    takes, which `resources.caption` says; but where a server elsewhere captions, that is about a client, and the size
    alone says what a VLM takes."""
    if not asks_elsewhere(config):
        return config
    captions = config.captions.model_copy(update={"server": None})
    resources = config.resources.model_copy(update={"caption": StageResources()})
    return config.model_copy(update={"captions": captions, "resources": resources})


def cluster_resources(config: ExperimentConfig, stage: Stage, on_gpu: bool) -> StageResources:
    """What a job of `stage` asks a cluster for, no key of it null.

    Args:
        on_gpu: whether its work takes a GPU; where it does not, it asks for one only if the experiment says so.
    """
    asked = getattr(config.resources, stage)
    size = size_of(config)
    if stage == "guard" and config.resources.size == "auto":  # by its own model, whatever those of the training are
        size = "large" if on_gpu else "small"
    preset = PRESETS[size][stage]
    if stage == "judge" and on_gpu and size == "large":
        preset = preset.model_copy(update=_MODEL_THAT_JUDGES)
    if stage == "caption" and asks_elsewhere(config) and size == "large":
        preset = preset.model_copy(update=_ASKS_A_SERVER)
    values = {key: value for key, value in asked.model_dump().items() if value is not None}
    gpus = {} if on_gpu else {"gpus_per_node": 0}
    if stage == "train" and on_gpu:  # one GPU per rank, so that either number says the other
        one = values.get("gpus_per_node", values.get("tasks_per_node"))
        gpus = {} if not one else {"gpus_per_node": one, "tasks_per_node": one}
    return preset.model_copy(update=gpus | values)
