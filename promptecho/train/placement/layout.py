"""Which rank does what, and which layouts can't work: known from numbers alone, before a model is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from promptecho.config.training import TrainingConfig
from promptecho.errors import ConfigError, DataError


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
        ConfigError, DataError: it can't work; names the key, and what to change.
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
            f"train; {_ways_out(training, layout)}"
        )
    if problem := deal_problem(training, layout.trainers):
        dealt = f"{problem}; {_ways_out(training, layout)}"
        if servers:
            raise ConfigError(
                f"training.reward_placement.per_node {servers}: of {per_node} process(es) on each of {layout.nodes} "
                f"node(s) {layout.trainers_per_node} train, and {dealt}"
            )
        raise DataError(dealt)
    return layout


def deal_problem(training: TrainingConfig, trainers: int) -> str | None:
    """Why a batch can't be dealt out evenly to so many trainers; None if it can."""
    share, rest = divmod(training.batch_size, trainers)
    if not rest and share % training.micro_batch_size == 0:
        return None
    what = f"training.batch_size {training.batch_size} over {trainers} processes"
    return f"{what} is not a multiple of micro_batch_size {training.micro_batch_size}"


def _ways_out(training: TrainingConfig, layout: RankLayout) -> str:
    """Every number of reward GPUs, of batch and micro-batch size with which these processes work."""
    ways = []
    dedicated = training.reward_placement.mode == "dedicated"
    if dedicated:
        works = [
            servers for servers in range(1, layout.per_node)
            if deal_problem(training, (layout.per_node - servers) * layout.nodes) is None
        ]  # fmt: skip
        if works:
            ways.append(f"set training.reward_placement.per_node to {_or(works)}")
    if layout.trainers > 0:
        images = training.prompts_per_iteration * training.images_per_prompt
        batches = [
            size for size in range(1, images + 1)
            if images % size == 0 and size % training.micro_batch_size == 0 and size % layout.trainers == 0
            and size // layout.trainers % training.micro_batch_size == 0
            and (training.timesteps.shared_by == "none" or size % training.images_per_prompt == 0)
        ]  # fmt: skip
        share, rest = divmod(training.batch_size, layout.trainers)
        if not rest:
            micro = [size for size in range(1, share + 1) if share % size == 0]
            ways.append(f"set training.micro_batch_size to {_or(micro)}")
        if batches:
            ways.append(f"set training.batch_size to {_or(batches)} (other results)")
    counts = [
        count for count in range(1, training.batch_size + 1)
        if deal_problem(training, count * layout.nodes) is None
    ]  # fmt: skip
    servers = f" besides those {layout.servers_per_node}" if dedicated and layout.servers_per_node else ""
    if counts:
        ways.append(f"start {_or(counts)} process(es) that train on each node{servers}")
    if dedicated and deal_problem(training, layout.world_size) is None:
        ways.append("set training.reward_placement.mode: colocated")
    if not ways:
        return f"no number of processes on {layout.nodes} node(s) works: change the number of nodes"
    return "any of these works: " + "; ".join(ways) if len(ways) > 1 else ways[0]


def _or(numbers: list[int]) -> str:
    *others, last = map(str, numbers)
    return f"{', '.join(others)} or {last}" if others else last


def accumulation(training: TrainingConfig, trainers: int) -> int:
    """Backward passes per optimizer step on each of so many trainers, among which `make_layout` could deal a batch."""
    passes = training.timesteps.per_sample if training.per_timestep else 1
    return training.batch_size // trainers // training.micro_batch_size * passes
