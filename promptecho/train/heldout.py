"""The reward on held-out captions with noise that never changes, and stopping early on it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from promptecho.config.training import TrainingConfig
from promptecho.config.training_parts import HeldoutSection
from promptecho.phases import Phase
from promptecho.train import rollout as ro
from promptecho.train.state import TrainingState
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


def watch(trainer: Trainer, state: TrainingState) -> dict[str, float]:
    """Evaluate the weights that would be saved, and note in the state whether they are the best so far.

    Returns {} where no evaluation is due.
    """
    training = trainer.training
    if not is_due(state.iteration, training):
        return {}
    weights = state.tensors["ema" if training.ema.decay is not None else "weights"]
    found = evaluate(trainer, weights)
    early = EarlyStop(**state.early_stop)
    if early.update(found["heldout_reward"], state.iteration, training.heldout) and training.heldout.patience:
        state.tensors = {**state.tensors, "best": weights}
    state.early_stop = asdict(early)
    return found


def evaluate(trainer: Trainer, weights: dict[str, torch.Tensor]) -> dict[str, float]:
    """Mean rewards of `weights` on the held-out prompts: "heldout_reward" (weighted sum), and one per reward.

    Sampling settings are those of training; every process takes its share.
    """
    training, engine = trainer.training, trainer.engine
    key = (training.seed, "heldout")
    series = ro.Series(trainer.heldout, training.heldout.images_per_prompt, key, "image {image} held out")
    with trainer.phase(Phase.HELDOUT):
        policy = engine.weights()
        rewards, _ = ro.score(trainer, ro.sample(trainer, weights, series))
        engine.use_weights(policy)
    # Images without a reward are left out.
    scores = rewards.nanmean((1, 2)) if rewards.isnan().any() else rewards.mean((1, 2))
    combined = sum(entry.weight * float(score) for entry, score in zip(trainer.rewards, scores, strict=True))
    return {
        "heldout_reward": combined,
        **{f"heldout_reward_{i}_{entry.metric}": float(scores[i]) for i, entry in enumerate(trainer.rewards)},
    }
