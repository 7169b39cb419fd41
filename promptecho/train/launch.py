"""How processes find each other: what the launcher tells, and the process group that follows from it."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from promptecho.cluster.slurm_env import ranks_of_step
from promptecho.config.training import TrainingConfig
from promptecho.errors import ConfigError
from promptecho.train.placement.layout import RankLayout, make_layout

JOIN_TIMEOUT_S = 300  # for the slowest node to start Python and import torch


@dataclass(frozen=True)
class Launch:
    """This process among those that were started together, and the store that all of them share."""

    rank: int
    world_size: int
    per_node: int | None  # None: not told
    store: dist.Store


def find_launch() -> Launch:
    """What the launcher describes: torchrun (RANK, WORLD_SIZE, ...), srun (the step's variables), or a single process.

    Raises:
        ConfigError: the processes do not find each other; names this rank and the address.
    """
    step = ranks_of_step(os.environ)
    os.environ.update(step)
    timeout = timedelta(seconds=JOIN_TIMEOUT_S)
    if step:
        rank, world_size = int(step["RANK"]), int(step["WORLD_SIZE"])
        store = _meet(step["MASTER_ADDR"], int(step["MASTER_PORT"]), rank, world_size)
    elif "RANK" in os.environ:
        store, rank, world_size = next(iter(rendezvous("env://", timeout=timeout)))
    else:
        os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed insists on it, as launchers set it
        store, rank, world_size = dist.HashStore(), 0, 1
    per_node = os.environ.get("LOCAL_WORLD_SIZE")
    return Launch(rank, world_size, int(per_node) if per_node else None, store)


def init_distributed(
    training: TrainingConfig, device: torch.device, timeout_s: int = 1800
) -> tuple[RankLayout, Launch]:
    """Join the process group of those that do the same as this process: all, or trainers and reward servers apart.

    Apart, because DeepSpeed takes the whole group for its own.

    Raises:
        ConfigError, DataError: the processes do not find each other, or their layout can't work.
    """
    if dist.is_initialized():  # a second segment of one process
        return make_layout(training, 0, 1, 1), Launch(0, 1, 1, dist.HashStore())
    launch = find_launch()
    layout = make_layout(training, launch.rank, launch.world_size, launch.per_node)
    # Flags and rewards travel between CPUs, gradients between GPUs.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    timeout = timedelta(seconds=timeout_s)
    launch.store.set_timeout(timeout)
    role, size = ("servers", layout.servers) if layout.serves else ("trainers", layout.trainers)
    store = dist.PrefixStore(f"promptecho/{role}", launch.store)
    dist.init_process_group(backend, store=store, rank=layout.index, world_size=size, timeout=timeout)
    if device.type == "cuda":
        os.environ["LOCAL_RANK"] = str(device.index or 0)  # by which DeepSpeed chooses the GPU
        torch.cuda.set_device(device)
    return layout, launch


def _meet(host: str, port: int, rank: int, world_size: int) -> dist.Store:
    """The store at which all ranks meet; rank 0 keeps it."""
    try:
        return dist.TCPStore(host, port, world_size, rank == 0, timeout=timedelta(seconds=JOIN_TIMEOUT_S))
    except dist.DistError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"rank {rank} of {world_size} ({socket.gethostname()}): the ranks do not meet at {host}:{port} within "
            f"{JOIN_TIMEOUT_S} s ({reason}); a rank failed before, the nodes do not reach each other, or the port is "
            "taken: start the same command again, as a new step takes another port"
        ) from error
