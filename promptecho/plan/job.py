"""What a training job takes from the plan of itself, on the GPUs that it has."""

from __future__ import annotations

from dataclasses import replace

from promptecho.config import ExperimentConfig, run_training
from promptecho.errors import ConfigError
from promptecho.plan import RESERVE_GB
from promptecho.plan.checkpointing import with_mode
from promptecho.plan.gpus import known
from promptecho.plan.plan import Planner
from promptecho.plan.result import Cluster
from promptecho.plan.settings import Settings, usual_prompt_tokens


def with_checkpointing(
    config: ExperimentConfig, run: str, device: str, world_size: int, per_node: int
) -> tuple[ExperimentConfig, str | None]:
    """With a mode in place of `activation_checkpointing: auto`: by the plan on a GPU, off on a CPU; and what to tell of
    it. `world_size`, `per_node`: processes in all and on each node."""
    if run_training(config, run).activation_checkpointing != "auto":
        return config, None
    if not device.startswith("cuda"):
        return with_mode(config, run, "off"), None
    import torch

    memory = torch.cuda.get_device_properties(device).total_memory
    try:
        return choose_checkpointing(config, run, memory, world_size, per_node)
    except Exception as error:  # what can't be planned, such as a family from outside, can be trained all the same
        reason = " ".join(str(error).split())[:200]
        return with_mode(config, run, "full"), f"full, as the run cannot be planned ({reason})"


def choose_checkpointing(
    config: ExperimentConfig, run: str, gpu_bytes: int, world_size: int, per_node: int
) -> tuple[ExperimentConfig, str]:
    """(the configuration with a mode of activation checkpointing in place of `auto`, why it is this one).

    Args:
        gpu_bytes: all memory of this process's GPU. 7 % of it are left besides the plan's reserve, as a card's GiB
            count as GB: what CUDA calls an 80 GB card has 85.
        world_size, per_node: processes in all and on each node, each with such a GPU.

    Raises:
        ConfigError, DataError, ModelError: as of `Planner`.
    """
    planner, cluster = _planned(config, gpu_bytes, world_size, per_node)
    config = planner.with_checkpointing(config, cluster, run)
    size = planner.update_bytes(config, cluster, run) / 1e9
    limit = f"{planner.limit(cluster.gpu) / 1e9:.0f} GB of this GPU"
    return config, f"{run_training(config, run).activation_checkpointing}: the update takes {size:.1f} of {limit}"


def choose_gathering(
    config: ExperimentConfig, run: str, gpu_bytes: int, world_size: int, per_node: int
) -> ExperimentConfig:
    """The configuration with a way of gathering a shared VLM in place of `auto`; arguments are as above.

    Raises:
        ConfigError: the VLM writes rewards, and has no room to be whole on a GPU; names what to change.
        DataError, ModelError: as of `Planner`.
    """
    planner, cluster = _planned(config, gpu_bytes, world_size, per_node)
    config = planner.with_gathering(config, cluster, run)
    if refused := planner.refusal(config, cluster, run):
        raise ConfigError(refused)
    return config


def _planned(config: ExperimentConfig, gpu_bytes: int, world_size: int, per_node: int) -> tuple[Planner, Cluster]:
    gpu = replace(known()["h100"], name="this GPU", memory_gb=gpu_bytes / 2**30)
    cache = config.models_prompt_cache is not None
    settings = Settings(1.0, 1.0, 1.0, RESERVE_GB, usual_prompt_tokens(config), 1, config.captions.query, cache)
    return Planner(settings), Cluster(gpu, world_size // per_node, per_node)
