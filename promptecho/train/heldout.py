"""The reward on held-out captions with noise that never changes, and stopping early on it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from promptecho.config.training import HeldoutSection, TrainingConfig
from promptecho.train import rollout as ro
from promptecho.train.trainer import Trainer


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


def evaluate(trainer: Trainer, weights: dict[str, torch.Tensor], iteration: int) -> dict[str, float]:
    """Mean rewards of `weights` on the held-out prompts: "heldout_reward" (weighted sum), and one per reward.

    Sampling settings are those of training; every process takes its share.
    """
    training, engine, prompts = trainer.training, trainer.engine, trainer.heldout
    per_prompt = training.heldout.images_per_prompt
    first = {"sample": 0, "reward": len(prompts) * per_prompt}

    def moved(phase: str, step: int) -> None:
        trainer.watchdog("heldout", iteration, first.get(phase, first["reward"] + len(trainer.rewards)) + step)

    policy = engine.weights()
    engine.use_weights(weights)
    rewards = ro.sample_and_score(
        trainer, prompts, per_prompt, (training.seed, "heldout"), iteration, "image {image} held out", moved
    ).rewards
    # Images without a reward are left out.
    scores = rewards.nanmean((1, 2)) if rewards.isnan().any() else rewards.mean((1, 2))
    engine.use_weights(policy)
    combined = sum(entry.weight * float(score) for entry, score in zip(trainer.rewards, scores, strict=True))
    return {
        "heldout_reward": combined,
        **{f"heldout_reward_{i}_{entry.name}": float(scores[i]) for i, entry in enumerate(trainer.rewards)},
    }
