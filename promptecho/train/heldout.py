"""The reward on held-out captions with noise that never changes, and stopping early on it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist

from promptecho.config.training import HeldoutSection, TrainingConfig
from promptecho.errors import PromptEchoError
from promptecho.t2i.base import Family
from promptecho.train import rollout as ro
from promptecho.train.data import Prompt
from promptecho.train.engine import Engine
from promptecho.train.lora import merged


@dataclass
class EarlyStop:
    """The best evaluation so far; part of the state, so that an interruption forgets nothing."""

    best: float | None = None
    best_iteration: int = 0
    without_best: int = 0
    stopped: bool = False

    def update(self, score: float, iteration: int, section: HeldoutSection) -> bool:
        """Take in one evaluation; True if it is a new best."""
        if self.best is None or score > self.best + section.min_delta:
            self.best, self.best_iteration, self.without_best = score, iteration, 0
            return True
        self.without_best += 1
        self.stopped = section.patience is not None and self.without_best >= section.patience
        return False


def is_due(iteration: int, training: TrainingConfig) -> bool:
    """Whether the policy after `iteration` iterations is evaluated. It depends on nothing that may change while a run
    goes on (its length, its checkpoints), so a continued run stops where an uninterrupted one would."""
    return bool(training.heldout.prompts) and iteration % training.heldout.every == 0


def evaluate(
    family: Family, engine: Engine, rewards: list[ro.WeightedReward], prompts: list[Prompt],
    weights: dict[str, torch.Tensor], training: TrainingConfig, shape: tuple[int, ...], moved,
) -> dict[str, float]:  # fmt: skip
    """Mean rewards of `weights` on the held-out prompts: "heldout_reward" (weighted sum), and one per reward.

    Sampling settings are those of training; every process takes its share.
    """
    per_prompt = training.heldout.images_per_prompt
    total = len(prompts) * per_prompt
    mine = ro.share_of_rank(total, dist.get_rank(), dist.get_world_size())
    cond = family.encode_prompts([prompt.text for prompt in prompts])
    policy = engine.weights()
    engine.use_weights(weights)
    with merged(engine.model):
        _, images = ro.sample_images(
            family, prompts, cond, training, shape, mine, per_prompt, (training.seed, "heldout"), moved
        )
    engine.use_weights(policy)
    owners = [prompts[i // per_prompt] for i in mine]
    local, error = torch.zeros((len(rewards), 0), dtype=torch.float64), None
    try:
        names = [
            f"image {i % per_prompt} of held-out prompt {owner.prompt_id}"
            for i, owner in zip(mine, owners, strict=True)
        ]
        local = ro.score_images(rewards, images, owners, names, lambda n: moved(total + n))
    except PromptEchoError as caught:
        error = caught
    ro.agree(error)
    scores = ro.gather_by_index(local.T.contiguous(), mine, total).T.mean(1)
    combined = sum(entry.weight * float(score) for entry, score in zip(rewards, scores, strict=True))
    return {
        "heldout_reward": combined,
        **{f"heldout_reward_{i}_{entry.reward.name}": float(scores[i]) for i, entry in enumerate(rewards)},
    }
