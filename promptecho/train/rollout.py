"""First half of an iteration: prompts -> images -> rewards, shared out over the ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from PIL import Image

from promptecho.config import run_vlm
from promptecho.config.training import TrainingConfig
from promptecho.errors import PromptEchoError
from promptecho.t2i.base import Family
from promptecho.train.data import Prompt, normal
from promptecho.train.failures import report_reward
from promptecho.train.lora import merged
from promptecho.train.ranks import agree, gather_by_index, rounds, share_of_rank
from promptecho.train.scoring import NotFiniteRewardError, WeightedReward
from promptecho.train.trainer import Trainer


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


@dataclass
class Scored:
    """What `sample_and_score` made: this rank's images, everyone's rewards."""

    cond: list[torch.Tensor]  # per prompt
    mine: list[int]  # this rank's images, prompt-major indices
    latents: torch.Tensor  # [len(mine), ...], float32
    rewards: torch.Tensor  # [rewards, G, K], float64


def sample_and_score(
    trainer: Trainer, prompts: list[Prompt], per_prompt: int, key: tuple[int | str, ...], iteration: int, where: str,
    moved: Callable[[str, int], None],
) -> Scored:  # fmt: skip
    """Collective: `per_prompt` images of each prompt and their rewards, shared out over the ranks.

    Args:
        key: with the prompt's id and the image's number in its group it seeds each image's noise.
        iteration: the one under way, as people count, for messages and dumps.
        where: what an image is called in messages; {image} is its number in its group, {iteration} the iteration.
        moved: called with phase and step of this rank: ("sample", images done), ("reward", 0) between the two halves,
            ("reward", rewards done), ("exchange", 0).

    Raises:
        PromptEchoError: a reward failed or is not finite, on every rank; the image and its label are dumped.
    """
    total = len(prompts) * per_prompt
    mine = share_of_rank(total, dist.get_rank(), dist.get_world_size())
    cond = trainer.family.encode_prompts([prompt.text for prompt in prompts])

    def made(indices: list[int], images: list[Image.Image]) -> None:
        names = [where.format(image=i % per_prompt, iteration=iteration) for i in indices]
        trainer.rewarder.submit(images, [prompts[i // per_prompt] for i in indices], names)

    with merged(trainer.engine.model):
        latents = sample_images(
            trainer.family, prompts, cond, trainer.training, trainer.shape, mine, per_prompt, key, made,
            lambda n: moved("sample", n),
        )  # fmt: skip
    moved("reward", 0)
    local, error = None, None
    try:
        local = trainer.rewarder.collect(lambda n: moved("reward", n))
    except NotFiniteRewardError as caught:
        vlm = run_vlm(trainer.segment.config, trainer.segment.run)
        error = report_reward(caught, trainer.segment.work, iteration, vlm.path)
    except PromptEchoError as caught:
        error = caught
    moved("exchange", 0)
    agree(error)
    rewards = gather_by_index(local.T.contiguous(), mine, total).T.reshape(len(trainer.rewards), len(prompts), -1)
    return Scored(cond, mine, latents, rewards)


def sample_images(
    family: Family, prompts: list[Prompt], cond: list[torch.Tensor], training: TrainingConfig, shape: tuple[int, ...],
    images: list[int], per_prompt: int, key: tuple[int | str, ...],
    made: Callable[[list[int], list[Image.Image]], None], moved: Callable[[int], None],
) -> torch.Tensor:  # fmt: skip
    """Sample the given image indices (prompt-major, `per_prompt` each) in batches.

    Args:
        key: with the prompt's id and the image's number in its group it seeds each image's noise.
        made: called with the indices and images of each batch.
        moved: called with the number of images that this rank has done.

    Returns:
        latents [n, ...]
    """
    size = training.sampling.batch_size
    latents = []
    batches = [images[start : start + size] for start in range(0, len(images), size)]
    if training.zero_stage == 3:  # every pass is one of all ranks: those with less sample an image for nobody
        wanted = rounds(len(prompts) * per_prompt, dist.get_world_size(), size)
        batches += [[]] * (wanted - len(batches))
    done = 0
    for batch in batches:
        chunk = batch or [0]
        noise = torch.stack([normal(shape, *key, prompts[i // per_prompt].prompt_id, i % per_prompt) for i in chunk])
        x0 = family.sample(
            noise.to(cond[0].device),
            [cond[i // per_prompt] for i in chunk],
            num_inference_steps=training.sampling.num_inference_steps,
            guidance_scale=training.sampling.guidance_scale,
        )
        if not batch:
            continue
        latents.append(x0.float())
        made(chunk, family.decode(x0))
        done += len(chunk)
        moved(done)
    return torch.cat(latents) if latents else torch.zeros((0, *shape), device=cond[0].device)


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
        **{f"reward_{i}_{entry.name}": float(rollout.rewards[i].mean()) for i, entry in enumerate(rewards)},
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
