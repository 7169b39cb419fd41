"""The rewards of a run as its configuration lists them: their settings, questions and labels, and then their models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from promptecho.config import ExperimentConfig, reward_templates, run_rewards, run_training
from promptecho.config.rewards import RewardSection
from promptecho.rewards.base import RewardContext
from promptecho.rewards.make import make_reward
from promptecho.templates import Template
from promptecho.train.labels import load_labels
from promptecho.train.prompts import TrainingPrompt
from promptecho.train.scoring import WeightedReward
from promptecho.vlm import Vlm


def list_rewards(
    config: ExperimentConfig, run: str, prompts: Sequence[TrainingPrompt], watched: Sequence[TrainingPrompt] = ()
) -> list[WeightedReward]:
    """The run's rewards with labels for all of `prompts` and `watched`, without the models that compute them."""
    entries, templates = run_rewards(config, run), reward_templates(config, run)
    seed, everything = run_training(config, run).seed, [*prompts, *watched]
    return [
        weighted_reward(config, index, entry, everything, template=template, seed=seed)
        for index, (entry, template) in enumerate(zip(entries, templates, strict=True))
    ]


def weighted_reward(
    config: ExperimentConfig, index: int, entry: RewardSection, prompts: Sequence[TrainingPrompt], *,
    template: Template | None = None, seed: int = 1,
) -> WeightedReward:  # fmt: skip
    """What one entry of `rewards`, its `index`-th, says of the reward and of its labels for `prompts`.

    Raises:
        DataError: its label file is faulty, or lacks a prompt.
    """
    context = RewardContext(
        options=entry.options, query=entry.query or config.captions.query, template=template,
        batch_size=entry.batch_size, seed=seed,
    )  # fmt: skip
    question = context.query if template is None else template.text
    share = entry.options.max_failure_share if entry.reward.writes else 0.0
    labels = load_labels(entry, index, prompts)
    return WeightedReward(entry.name, entry.weight, question, labels, context, share, measures=entry.reward.measures)


def with_models(
    rewards: list[WeightedReward], vlms: Sequence[Vlm | None], device: torch.device
) -> list[WeightedReward]:
    """The same rewards, each computed by its VLM of `vlms`, or on `device` where it needs none (None)."""
    contexts = [replace(entry.context, vlm=vlm, device=device) for entry, vlm in zip(rewards, vlms, strict=True)]
    return [
        replace(entry, reward=make_reward(entry.name, context), context=context)
        for entry, context in zip(rewards, contexts, strict=True)
    ]
