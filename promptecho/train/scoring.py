"""Images to rewards, rewards to advantages; no collectives here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from promptecho import awm
from promptecho.config.training import TrainingConfig
from promptecho.errors import RewardError
from promptecho.rewards.base import Reward
from promptecho.seeds import derive_seed
from promptecho.train.data import Prompt


@dataclass
class WeightedReward:
    """One entry of the config's `rewards`. `labels` by prompt id; None: the prompts themselves.

    `reward` is None on a rank that has its rewards from another one.
    """

    name: str
    weight: float
    query: str
    labels: dict[str, str] | None = None
    reward: Reward | None = None

    def label(self, prompt: Prompt) -> str:
        return prompt.text if self.labels is None else self.labels[prompt.prompt_id]


class NotFiniteRewardError(RewardError):
    """A reward of one image failed or is not finite; carries what scores it again."""

    def __init__(self, message: str, image: Image.Image, facts: dict[str, Any]):
        super().__init__(message)
        self.image, self.facts = image, facts


def score_images(
    rewards: list[WeightedReward], images: list[Image.Image], prompts: list[Prompt], names: list[str], moved
) -> torch.Tensor:
    """Rewards [len(rewards), n] in float64.

    Raises:
        NotFiniteRewardError: a reward failed or is not finite; names prompt and image.
    """
    rows = []
    for index, entry in enumerate(rewards):
        for image, name in zip(images, names, strict=True):
            image.info["path"] = name
        labels = [entry.label(prompt) for prompt in prompts]
        values: list[float] = []
        try:
            values = entry.reward(images, labels, [p.prompt_id for p in prompts]) if images else []
        except RewardError as error:
            if error.index is None:
                raise
            _raise_for(error.index, str(error), entry, images, prompts, names)
        for position, value in enumerate(values):
            if not math.isfinite(value):
                message = (
                    f"reward {entry.name} of prompt {prompts[position].prompt_id}, {names[position]}: "
                    f"{value} is not finite"
                )
                _raise_for(position, message, entry, images, prompts, names)
        rows.append(torch.tensor(values, dtype=torch.float64))
        moved(index + 1)
    return torch.stack(rows)


def _raise_for(index: int, message: str, entry: WeightedReward, images, prompts: list[Prompt], names: list[str]):
    prompt = prompts[index]
    facts = {
        "kind": "reward", "reward": entry.name, "query": entry.query, "label": entry.label(prompt),
        "prompt_id": prompt.prompt_id, "prompt": prompt.text, "image": names[index],
    }  # fmt: skip
    raise NotFiniteRewardError(message, images[index], facts)


def combined_advantages(rewards: torch.Tensor, weights: list[float], training: TrainingConfig) -> torch.Tensor:
    """Advantages [G, K] from rewards [R, G, K]: each reward's own advantages, weighted, summed."""
    clip = float("inf") if training.advantage.clip is None else training.advantage.clip
    parts = [
        weight * awm.group_advantages(values, scale=training.advantage.scale, clip=clip)
        for values, weight in zip(rewards, weights, strict=True)
    ]
    return torch.stack(parts).sum(0)


def permuted(rewards: torch.Tensor, seed: int, iteration: int) -> torch.Tensor:
    """Rewards [R, G, K] with each prompt's dealt anew to its own images, all rewards of an image together."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "permuted rewards", iteration))
    n_prompts, n_images = rewards.shape[1:]
    order = torch.stack([torch.randperm(n_images, generator=generator) for _ in range(n_prompts)]).to(rewards.device)
    return rewards.gather(2, order.expand_as(rewards))
