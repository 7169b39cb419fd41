"""What a partition allows beyond what its nodes have, from `scontrol show partition`.

Where EnforcePartLimits is off, which is Slurm's default, sbatch takes jobs over these limits, and they never start.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .resources import Request

PARTITIONS = ("scontrol", "-o", "show", "partition")


@dataclass(frozen=True)
class Limits:
    """Of one partition; None where there is none. Slurm decides for which users it holds: accounts have
    sub-accounts."""

    memory_per_node_mb: int | None = None
    cpus_per_node: int | None = None
    min_nodes: int = 0


def parse_limits(text: str) -> dict[str, Limits]:
    """Limits by partition from the output of `PARTITIONS`."""
    found = {}
    for line in text.splitlines():
        values = dict(re.findall(r"(\w+)=(\S*)", line))
        if name := values.get("PartitionName"):
            memory, cpus, nodes = (_number(values, key) for key in ("MaxMemPerNode", "MaxCPUsPerNode", "MinNodes"))
            found[name] = Limits(memory, cpus, nodes or 0)
    return found


def limit_problems(limits: Limits, request: Request, where: str, least_memory_mb: int) -> list[str]:
    """What of a request a partition does not allow. Each of its nodes has at least `least_memory_mb`."""
    found = []
    cpus = request.cpus_per_node
    most = limits.memory_per_node_mb
    if most is not None:
        if request.mem_mb == 0 and least_memory_mb > most:
            found.append(f"all memory of a node (mem_mb=0, or exclusive): {where} allows {most} MB; set mem_mb")
        elif (request.mem_mb or 0) > most:
            found.append(f"mem_mb={request.mem_mb}: {where} allows {most} MB per node at most")
        elif (request.mem_mb_per_cpu or 0) * cpus > most:
            found.append(f"mem_mb_per_cpu={request.mem_mb_per_cpu} x {cpus} CPUs: {where} allows {most} MB per node")
    if limits.cpus_per_node is not None and cpus > limits.cpus_per_node:
        found.append(f"{request.cpus_asked}: {where} allows {limits.cpus_per_node} CPUs per node at most")
    if request.nodes < limits.min_nodes:
        found.append(f"nodes={request.nodes}: {where} takes no job of fewer than {limits.min_nodes}")
    return found


def _number(values: Mapping[str, str], key: str) -> int | None:
    """0 means that there is no limit, as UNLIMITED does."""
    text = values.get(key, "")
    return int(text) if text.isdecimal() and int(text) else None
