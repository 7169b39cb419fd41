"""First half of an iteration: prompts -> images -> rewards -> advantages, shared out over the ranks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from PIL import Image

from promptecho import awm
from promptecho.config.training import TrainingConfig
from promptecho.errors import PromptEchoError, RewardError
from promptecho.rewards.base import Reward
from promptecho.seeds import derive_seed
from promptecho.t2i.base import Family
from promptecho.train.data import Prompt, normal


@dataclass
class WeightedReward:
    """One entry of the config's `rewards`. `labels` by prompt id; None: the prompts themselves."""

    reward: Reward
    weight: float
    query: str
    labels: dict[str, str] | None = None

    def label(self, prompt: Prompt) -> str:
        return prompt.text if self.labels is None else self.labels[prompt.prompt_id]


class NotFiniteRewardError(RewardError):
    """A reward of one image failed or is not finite; carries what scores it again."""

    def __init__(self, message: str, image: Image.Image, facts: dict[str, Any]):
        super().__init__(message)
        self.image, self.facts = image, facts


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
    family: Family, prompts: list[Prompt], cond: list[torch.Tensor], training: TrainingConfig, shape: tuple[int, ...],
    images: list[int], per_prompt: int, key: tuple[int | str, ...], moved,
) -> tuple[torch.Tensor, list[Image.Image]]:  # fmt: skip
    """Sample the given image indices (prompt-major, `per_prompt` each) in batches.

    Args:
        key: with the prompt's id and the image's number in its group it seeds each image's noise.
        moved: called with the number of images that this rank has done.

    Returns:
        latents [n, ...] and decoded images.
    """
    size = training.sampling.batch_size
    latents, decoded = [], []
    for start in range(0, len(images), size):
        chunk = images[start : start + size]
        noise = torch.stack([normal(shape, *key, prompts[i // per_prompt].prompt_id, i % per_prompt) for i in chunk])
        x0 = family.sample(
            noise.to(cond[0].device),
            [cond[i // per_prompt] for i in chunk],
            num_inference_steps=training.sampling.num_inference_steps,
            guidance_scale=training.sampling.guidance_scale,
        )
        latents.append(x0.float())
        decoded += family.decode(x0)
        moved(start + len(chunk))
    return torch.cat(latents) if latents else torch.zeros((0, *shape), device=cond[0].device), decoded


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
                    f"reward {entry.reward.name} of prompt {prompts[position].prompt_id}, {names[position]}: "
                    f"{value} is not finite"
                )
                _raise_for(position, message, entry, images, prompts, names)
        rows.append(torch.tensor(values, dtype=torch.float64))
        moved(index + 1)
    return torch.stack(rows)


def _raise_for(index: int, message: str, entry: WeightedReward, images, prompts: list[Prompt], names: list[str]):
    prompt = prompts[index]
    facts = {
        "kind": "reward", "reward": entry.reward.name, "query": entry.query, "label": entry.label(prompt),
        "prompt_id": prompt.prompt_id, "prompt": prompt.text, "image": names[index],
    }  # fmt: skip
    raise NotFiniteRewardError(message, images[index], facts)


def reward_metrics(rollout: Rollout, rewards: list[WeightedReward]) -> dict[str, float]:
    """What to watch about an iteration's rewards."""
    combined = torch.stack([entry.weight * values for entry, values in zip(rewards, rollout.rewards, strict=True)])
    combined = combined.sum(0)
    spread = combined.std(1, correction=0)
    return {
        "reward_mean": float(combined.mean()),
        "reward_std": float(combined.std(correction=0)),
        "reward_group_std": float(spread.mean()),
        "zero_std_groups": float((spread < 1e-8).double().mean()),
        **{f"reward_{i}_{entry.reward.name}": float(rollout.rewards[i].mean()) for i, entry in enumerate(rewards)},
        "advantage_abs_mean": float(rollout.advantages.abs().mean()),
        "diversity": group_diversity(rollout.latents, rollout.images_per_prompt),
    }


def group_diversity(latents: torch.Tensor, per_prompt: int) -> float:
    """Mean over prompts of the mean pairwise root-mean-square distance of their latents [G * K, ...].

    It falls towards 0 when a policy answers every prompt with one image: reward hacking that the reward can't show.
    """
    if per_prompt < 2:
        return 0.0
    groups = latents.double().flatten(1).view(-1, per_prompt, latents[0].numel())
    distances = torch.cdist(groups, groups) / groups.shape[-1] ** 0.5
    return float(distances.sum() / (len(groups) * per_prompt * (per_prompt - 1)))


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


def agree(error: PromptEchoError | None) -> None:
    """Collective: raise the first rank's error on every rank, so that none waits for one that has left."""
    messages: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(messages, None if error is None else str(error))
    failed = [(rank, message) for rank, message in enumerate(messages) if message is not None]
    if failed:
        raise error or PromptEchoError(f"rank {failed[0][0]}: {failed[0][1]}")


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
