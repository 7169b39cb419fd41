"""Rewards on the ranks that train: the VLM whole on each, or sharded over those of a node."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.distributed as dist
from PIL import Image

from promptecho.cluster.attention import check_attention
from promptecho.compute.mode import current
from promptecho.config import ExperimentConfig, run_training, run_vlm
from promptecho.train.data import TrainingPrompt
from promptecho.train.placement.layout import RankLayout
from promptecho.train.scoring import RolloutScores, WeightedReward, score_images
from promptecho.train.stop import StopCheck
from promptecho.vlm import Vlm, load_vlm
from promptecho.vlm.compiled import compile_vlm
from promptecho.vlm.sharding import lies_in_files, load_in_turn, shard_vlm
from promptecho.vlm.turns import all_want, group_timeout


class LocalRewarder:
    """Keeps images until all are there, then scores them in one go, in step with the ranks that share the VLM.

    Collective where it is shared.
    """

    def __init__(self, rewards: list[WeightedReward], vlm: Vlm | None, stop: StopCheck):
        self.rewards, self.in_step = rewards, nullcontext if vlm is None else vlm.in_step
        with self.in_step():  # where the VLM is sharded, its first passes belong to loading
            pass
        if vlm is not None:
            stop.watch_passes(vlm.model)  # a rank that breaks off still takes part in the other ranks' passes
        self.images: list[Image.Image] = []
        self.prompts: list[TrainingPrompt] = []
        self.names: list[str] = []

    def submit(self, images: list[Image.Image], prompts: list[TrainingPrompt], names: list[str]) -> None:
        self.images += images
        self.prompts += prompts
        self.names += names

    def collect(self, moved: Callable[[int], None]) -> RolloutScores:
        images, prompts, names = self.images, self.prompts, self.names
        self.images, self.prompts, self.names = [], [], []
        with self.in_step():
            return score_images(self.rewards, images, prompts, names, moved)

    def abandon(self) -> None:
        pass

    def close(self, exit_code: int) -> None:
        pass


def load_reward_vlm(
    config: ExperimentConfig, run: str, device: torch.device, layout: RankLayout,
    turn: Callable[[int], None] = lambda _: None,
) -> Vlm:  # fmt: skip
    """The VLM of a run's rewards on this rank: whole, or this rank's share of it.

    Collective over all ranks of the process group where the VLM is sharded; `turn` is called with the number of ranks
    that have loaded it.
    """
    section, placement = run_vlm(config, run), run_training(config, run).reward_placement
    mode = placement.mode
    check_attention(config.compute.attention, device)
    groups = layout.node_groups()
    offload = mode == "offloaded"
    sharded = mode != "replicated" and (offload or len(groups[0]) > 1)

    def load(where: torch.device) -> Vlm:
        vlm = load_vlm(
            section.path, dtype=section.dtype, device=where, revision=section.revision,
            trust_remote_code=section.trust_remote_code, attention=config.compute.attention,
        )  # fmt: skip
        if current().compile:
            compile_vlm(vlm)
        return vlm

    if not sharded:
        return load(device)
    # Every rank makes every group, in the same order.
    group = [dist.new_group(ranks, timeout=group_timeout()) for ranks in groups][layout.node]
    # Each rank has decided `gather: auto` by its own GPU, but the exchanges must be those of all.
    whole = all_want(placement.gather == "phase", group)
    if placement.gather == "phase" and not whole:
        print(f"rank {layout.rank}: gather layer, as another GPU here has no room", file=sys.stderr, flush=True)
    light: list[bool] = []

    def share() -> Vlm:
        vlm = load(torch.device("cpu"))
        light.append(lies_in_files(vlm.model))
        return shard_vlm(vlm, group, device, offload=offload, whole=whole)

    return load_in_turn(share, group, turn, lambda: light[0])
