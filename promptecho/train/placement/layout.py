"""Which rank does what, and which layouts can't work: known from numbers alone, before a model is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from promptecho.config.training import TrainingConfig
from promptecho.errors import ConfigError


@dataclass(frozen=True)
class RankLayout:
    """Ranks are counted node by node, `per_node` on each; the last `servers_per_node` of a node serve rewards."""

    rank: int
    world_size: int
    per_node: int
    servers_per_node: int = 0

    @property
    def node(self) -> int:
        return self.rank // self.per_node

    @property
    def nodes(self) -> int:
        return self.world_size // self.per_node

    @property
    def local_rank(self) -> int:
        return self.rank % self.per_node

    @property
    def trainers_per_node(self) -> int:
        return self.per_node - self.servers_per_node

    @property
    def trainers(self) -> int:
        return self.nodes * self.trainers_per_node

    @property
    def servers(self) -> int:
        return self.nodes * self.servers_per_node

    @property
    def serves(self) -> bool:
        return self.local_rank >= self.trainers_per_node

    @property
    def index(self) -> int:
        """This rank's number among those that do the same: trainers or servers."""
        if self.serves:
            return self.node * self.servers_per_node + self.local_rank - self.trainers_per_node
        return self.node * self.trainers_per_node + self.local_rank

    def node_groups(self) -> list[list[int]]:
        """Indices of each node's ranks among those that do the same as this one."""
        size = self.servers_per_node if self.serves else self.trainers_per_node
        return [list(range(node * size, (node + 1) * size)) for node in range(self.nodes)]


def make_layout(training: TrainingConfig, rank: int, world_size: int, per_node: int | None) -> RankLayout:
    """The layout that the launcher and the configuration ask for.

    Args:
        per_node: processes on each node; None where the launcher did not tell.

    Raises:
        ConfigError: it can't work; names the key, and what to change.
    """
    placement = training.reward_placement
    if world_size == 1:
        per_node = 1
    if per_node is None and placement.mode == "replicated":
        per_node = 1  # nobody asks who shares a node
    if per_node is None:
        raise ConfigError(
            f"training.reward_placement.mode {placement.mode}: the launcher does not say how many processes run on "
            "each node; set LOCAL_WORLD_SIZE in their environment, as torchrun does"
        )
    if world_size % per_node:
        raise ConfigError(
            f"{world_size} processes are not a multiple of {per_node} on each node; start equally many on every node"
        )
    servers = placement.per_node if placement.mode == "dedicated" else 0
    layout = RankLayout(rank, world_size, per_node, servers)
    if servers >= per_node:
        raise ConfigError(
            f"training.reward_placement.per_node {servers}: of {per_node} process(es) on each node none is left to "
            f"train; {_ways_out(layout)}"
        )
    return layout


def _ways_out(layout: RankLayout) -> str:
    ways = ["set training.reward_placement.mode: colocated"]
    if layout.per_node > 1:
        ways.insert(0, f"set training.reward_placement.per_node to at most {layout.per_node - 1}")
    return " or ".join([*ways, f"start at least {layout.servers_per_node + 1} processes on each node"])
