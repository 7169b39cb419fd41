"""First half of an iteration: prompts -> images -> rewards -> advantages, shared out over the ranks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from PIL import Image

from promptecho import awm
from promptecho.config.training import TrainingConfig
from promptecho.errors import PromptEchoError, RewardError
from promptecho.rewards.base import Reward
from promptecho.t2i.base import Family
from promptecho.train.data import Prompt, normal


@dataclass
class WeightedReward:
    """One entry of the config's `rewards`."""

    reward: Reward
    weight: float


@dataclass
class Rollout:
    """All images of an iteration, prompt-major: image g * K + k is the k-th of prompt g. Same on every rank."""

    prompts: list[Prompt]
    cond: list[torch.Tensor]  # per prompt
    latents: torch.Tensor  # [G * K, ...], float32
    rewards: torch.Tensor  # [rewards, G, K], float64
    advantages: torch.Tensor  # [G * K], float64

    @property
    def images_per_prompt(self) -> int:
        return len(self.latents) // len(self.prompts)

    def prompt_of(self, image: int) -> int:
        return image // self.images_per_prompt


def sample_images(
    family: Family, prompts: list[Prompt], cond: list[torch.Tensor], training: TrainingConfig, iteration: int,
    shape: tuple[int, ...], images: list[int],
) -> tuple[torch.Tensor, list[Image.Image]]:  # fmt: skip
    """Sample the given image indices in batches; returns their latents [n, ...] and decoded images."""
    per_prompt, size = training.images_per_prompt, training.sampling.batch_size
    latents, decoded = [], []
    for start in range(0, len(images), size):
        chunk = images[start : start + size]
        noise = torch.stack(
            [
                normal(shape, training.seed, "sampling", iteration, prompts[i // per_prompt].prompt_id, i % per_prompt)
                for i in chunk
            ]
        )
        x0 = family.sample(
            noise.to(cond[0].device),
            [cond[i // per_prompt] for i in chunk],
            num_inference_steps=training.sampling.num_inference_steps,
            guidance_scale=training.sampling.guidance_scale,
        )
        latents.append(x0.float())
        decoded += family.decode(x0)
    return torch.cat(latents), decoded


def score_images(
    rewards: list[WeightedReward], images: list[Image.Image], prompts: list[Prompt], names: list[str]
) -> torch.Tensor:
    """Rewards [len(rewards), n] in float64.

    Raises:
        RewardError: a reward is not finite; names prompt and image.
    """
    rows = []
    for entry in rewards:
        for image, name in zip(images, names, strict=True):
            image.info["path"] = name
        values = entry.reward(images, [p.text for p in prompts], [p.prompt_id for p in prompts])
        for value, prompt, name in zip(values, prompts, names, strict=True):
            if not torch.isfinite(torch.tensor(value)):
                raise RewardError(
                    f"reward {entry.reward.name} of prompt {prompt.prompt_id}, {name}: {value} is not finite"
                )
        rows.append(torch.tensor(values, dtype=torch.float64))
    return torch.stack(rows)


def combined_advantages(rewards: torch.Tensor, weights: list[float], training: TrainingConfig) -> torch.Tensor:
    """Advantages [G, K] from rewards [R, G, K]: each reward's own advantages, weighted, summed."""
    clip = float("inf") if training.advantage.clip is None else training.advantage.clip
    parts = [
        weight * awm.group_advantages(values, scale=training.advantage.scale, clip=clip)
        for values, weight in zip(rewards, weights, strict=True)
    ]
    return torch.stack(parts).sum(0)


def agree(error: PromptEchoError | None) -> None:
    """Collective: raise the first rank's error on every rank, so that none waits for one that has left."""
    messages: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(messages, None if error is None else str(error))
    failed = [(rank, message) for rank, message in enumerate(messages) if message is not None]
    if failed:
        raise error or RewardError(f"rank {failed[0][0]}: {failed[0][1]}")


def gather_by_index(local: torch.Tensor, indices: list[int], total: int) -> torch.Tensor:
    """[total, ...] from each rank's rows for its own `indices`; every index belongs to exactly one rank."""
    full = torch.zeros((total, *local.shape[1:]), dtype=local.dtype, device=local.device)
    full[indices] = local
    if dist.get_world_size() > 1:
        dist.all_reduce(full)  # sums with zeros, so values stay exact
    return full


def share_of_rank(total: int, rank: int, world_size: int) -> list[int]:
    """A contiguous share of `total` images; shares differ by at most one image."""
    return list(range(total * rank // world_size, total * (rank + 1) // world_size))
