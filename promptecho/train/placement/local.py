"""Rewards on the ranks that train: the VLM whole on each, or sharded over those of a node."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
from PIL import Image

from promptecho.cluster.attention import check_attention
from promptecho.compute.mode import current
from promptecho.config import ExperimentConfig, reward_vlm, run_rewards, run_training
from promptecho.config.rewards import VlmSection
from promptecho.train.data import TrainingPrompt
from promptecho.train.placement.layout import RankLayout
from promptecho.train.scoring import RolloutScores, WeightedReward, distinct_vlms, score_images
from promptecho.train.stop import StopCheck
from promptecho.vlm import Vlm, load_vlm
from promptecho.vlm.compiled import compile_vlm
from promptecho.vlm.sharding import lies_in_files, load_in_turn, shard_vlm
from promptecho.vlm.turns import all_want, group_timeout


class LocalRewarder:
    """Keeps images until all are there, then scores them in one go, in step with the ranks that share the VLMs.

    Collective where these are shared.
    """

    def __init__(self, rewards: list[WeightedReward], stop: StopCheck):
        self.rewards = rewards
        for vlm in filter(None, distinct_vlms(rewards)):
            with vlm.in_step():  # where the VLM is sharded, its first passes belong to loading
                pass
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
        return score_images(self.rewards, images, prompts, names, moved)

    def abandon(self) -> None:
        pass

    def close(self, exit_code: int) -> None:
        pass


def load_reward_vlms(
    config: ExperimentConfig, run: str, device: torch.device, layout: RankLayout,
    turn: Callable[[int], None] = lambda _: None,
) -> list[Vlm | None]:  # fmt: skip
    """For each of a run's rewards its VLM on this rank, whole or this rank's share of it; None where it needs none. One
    that several rewards have is loaded once.

    Collective over all ranks of the process group where VLMs are sharded; `turn` is called with the number of ranks
    that have loaded one.
    """
    sections = [reward_vlm(config, entry, run) for entry in run_rewards(config, run)]
    wanted = [section for index, section in enumerate(sections) if section and section not in sections[:index]]
    if not wanted:
        return [None for _ in sections]
    placement, groups = run_training(config, run).reward_placement, layout.node_groups()
    check_attention(config.compute.attention, device)
    offload = placement.mode == "offloaded"
    sharded = placement.mode != "replicated" and (offload or len(groups[0]) > 1)

    def load(section: VlmSection, where: torch.device) -> Vlm:
        vlm = load_vlm(
            section.path, dtype=section.dtype, device=where, revision=section.revision,
            trust_remote_code=section.trust_remote_code, attention=config.compute.attention,
        )  # fmt: skip
        if current().compile:
            compile_vlm(vlm)
        return vlm

    if sharded:
        # Every rank makes every group, in the same order.
        group = [dist.new_group(ranks, timeout=group_timeout()) for ranks in groups][layout.node]
        # Each rank has decided `gather: auto` by its own GPU, but the exchanges must be those of all.
        whole = all_want(placement.gather == "phase", group)
        if placement.gather == "phase" and not whole:
            print(f"rank {layout.rank}: gather layer, as another GPU here has no room", file=sys.stderr, flush=True)
        loaded = [_share(partial(load, one), group, device, turn, offload=offload, whole=whole) for one in wanted]
    else:
        loaded = [load(one, device) for one in wanted]
    return [None if section is None else loaded[wanted.index(section)] for section in sections]


def _share(
    load: Callable[[torch.device], Vlm], group: dist.ProcessGroup, device: torch.device, turn: Callable[[int], None],
    *, offload: bool, whole: bool,
) -> Vlm:  # fmt: skip
    """Collective: this rank's share of the VLM that `load` brings to the CPU of one rank after the other."""
    light: list[bool] = []

    def share() -> Vlm:
        vlm = load(torch.device("cpu"))
        light.append(lies_in_files(vlm.model))
        return shard_vlm(vlm, group, device, offload=offload, whole=whole)

    return load_in_turn(share, group, turn, lambda: light[0])
