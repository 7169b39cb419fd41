"""First half of an iteration: prompts -> images -> rewards, shared out over the ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from PIL import Image

from promptecho.config import needs_vlm, run_vlm
from promptecho.config.training import TrainingConfig
from promptecho.errors import PromptEchoError, RewardError
from promptecho.memory import in_phase
from promptecho.t2i.base import Family
from promptecho.t2i.lora import merged
from promptecho.train.data import Prompt, Rollout, normal
from promptecho.train.failures import report_reward
from promptecho.train.ranks import agree, gather_by_index, rounds, share_of_rank
from promptecho.train.scoring import NotFiniteRewardError, Scores, WeightedReward, too_many_failures
from promptecho.train.trainer import Trainer

REPLIES_FIX = "raise max_new_tokens if replies are cut off, write another template, or take a better VLM"


@dataclass
class Scored:
    """What `sample_and_score` made: this rank's images, everyone's rewards."""

    cond: list[torch.Tensor]  # per prompt
    mine: list[int]  # this rank's images, prompt-major indices
    latents: torch.Tensor  # [len(mine), ...], float32
    rewards: torch.Tensor  # [rewards, G, K], float64; NaN where an image has none
    replies: dict[str, float]  # metrics about failed replies


def sample_and_score(
    trainer: Trainer, prompts: list[Prompt], per_prompt: int, key: tuple[int | str, ...], iteration: int, where: str,
    moved: Callable[[str, int], None], upcoming: Iterable[str] = (),
) -> Scored:  # fmt: skip
    """Collective: `per_prompt` images of each prompt and their rewards, shared out over the ranks.

    Args:
        key: with the prompt's id and the image's number in its group it seeds each image's noise.
        iteration: the one under way, as people count, for messages and dumps.
        where: what an image is called in messages; {image} is its number in its group, {iteration} the iteration.
        moved: called with phase and step of this rank: ("sample", images done), ("reward", 0) between the two halves,
            ("reward", rewards done), ("exchange", 0).
        upcoming: texts of prompts that come next, for the prompt cache.

    Raises:
        OutOfMemoryError: where sampling met it; on every rank where rewards did.
        PromptEchoError: on every rank; a reward failed or is not finite (the image and its label are dumped), or too
            many replies are unreadable.
        StopRequestedError: on every rank.
    """
    total = len(prompts) * per_prompt
    mine = share_of_rank(total, dist.get_rank(), dist.get_world_size())
    with trainer.memory("encode"):
        cond = trainer.encoder.encode([prompt.text for prompt in prompts], upcoming)

    def made(indices: list[int], images: list[Image.Image]) -> None:
        names = [where.format(image=i % per_prompt, iteration=iteration) for i in indices]
        trainer.rewarder.submit(images, [prompts[i // per_prompt] for i in indices], names)

    together = trainer.training.zero_stage == 3  # its passes are exchanges
    with trainer.memory("sample"), trainer.stop.listening(in_step=together), merged(trainer.engine.model):
        latents = sample_images(
            trainer.family, prompts, cond, trainer.training, trainer.shape, mine, per_prompt, key, made,
            lambda n: moved("sample", n),
        )  # fmt: skip
    moved("reward", 0)
    trainer.stop()
    local, error = None, None
    try:
        with trainer.memory("reward"), trainer.stop.listening():
            local = trainer.rewarder.collect(lambda n: moved("reward", n))
    except NotFiniteRewardError as caught:
        config, run = trainer.segment.config, trainer.segment.run
        vlm = run_vlm(config, run).path if needs_vlm(config, run) else None
        error = report_reward(caught, trainer.segment.work, iteration, vlm)
    except PromptEchoError as caught:
        error = caught
    moved("exchange", 0)
    agree(error)
    trainer.stop()
    scores = gather_scores(local, mine, total)
    if (problem := too_many_failures(trainer.rewards, scores)) is not None:
        index, message = problem
        example = local.examples[index]  # of this rank; another one may have none
        agree(RewardError(f"iteration {iteration}: {message}; {example}; {REPLIES_FIX}") if example else None)
        raise RewardError(f"iteration {iteration}: {message}; {REPLIES_FIX}")
    rewards = scores.rewards.reshape(len(trainer.rewards), len(prompts), -1)
    return Scored(cond, mine, latents, rewards, reply_metrics(trainer.rewards, scores))


def gather_scores(local: Scores, mine: list[int], total: int) -> Scores:
    """Collective: everyone's scores, but for the examples."""
    rows = torch.cat([local.rewards, local.replies, local.failed]).T.contiguous()
    return Scores(*gather_by_index(rows, mine, total).T.contiguous().chunk(3), local.examples)


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
            schedule=training.sampling.schedule,
        )
        if not batch:
            continue
        latents.append(x0.float())
        with in_phase("decode"):
            decoded = family.decode(x0)
        made(chunk, decoded)
        done += len(chunk)
        moved(done)
    return torch.cat(latents) if latents else torch.zeros((0, *shape), device=cond[0].device)


def reply_metrics(rewards: list[WeightedReward], scores: Scores) -> dict[str, float]:
    """Replies that could not be read, their share, and images that have no reward; {} where nothing is read."""
    found: dict[str, float] = {}
    for index, entry in enumerate(rewards):
        if replies := float(scores.replies[index].sum()):
            name, failed = f"{index}_{entry.name}", float(scores.failed[index].sum())
            found |= {f"failed_replies_{name}": int(failed), f"failed_share_{name}": failed / replies}
            found[f"missing_rewards_{name}"] = int(scores.rewards[index].isnan().sum())
    return found


def advantage_sizes(parts: torch.Tensor, rewards: list[WeightedReward]) -> dict[str, float]:
    """Mean size of each reward's weighted advantages [R, G, K], where there are several: which of them decides."""
    if len(rewards) < 2:
        return {}
    return {f"advantage_size_{i}_{entry.name}": float(parts[i].abs().mean()) for i, entry in enumerate(rewards)}


def reward_metrics(rollout: Rollout, rewards: list[WeightedReward]) -> dict[str, float]:
    """What to watch about an iteration's rewards.

    Images that lack a reward are left out, and a group of fewer than two whole images counts as one without spread.
    """
    combined = torch.stack([entry.weight * values for entry, values in zip(rewards, rollout.rewards, strict=True)])
    combined = combined.sum(0)
    spread = group_std(combined)
    return {
        "reward_mean": float(present(combined).mean()),
        "reward_std": float(present(combined).std(correction=0)),
        "reward_group_std": float(spread.mean()),
        "zero_std_groups": float((spread < 1e-8).double().mean()),
        **{f"reward_{i}_{entry.name}": float(present(rollout.rewards[i]).mean()) for i, entry in enumerate(rewards)},
        "advantage_abs_mean": float(rollout.advantages.abs().mean()),
        "diversity": group_diversity(rollout.latents, rollout.images_per_prompt),
        **rollout.replies,
    }


def group_std(rewards: torch.Tensor) -> torch.Tensor:
    """Standard deviation [G] within each group of `rewards[G, K]`; 0 with fewer than two that are not missing."""
    if not rewards.isnan().any():
        return rewards.std(1, correction=0)
    groups = [present(group) for group in rewards]
    return torch.stack([group.std(correction=0) if len(group) > 1 else rewards.new_zeros(()) for group in groups])


def present(values: torch.Tensor) -> torch.Tensor:
    """`values` as they are if none is NaN, else the others in a row."""
    missing = values.isnan()
    return values[~missing] if missing.any() else values


def group_diversity(latents: torch.Tensor, per_prompt: int) -> float:
    """Mean over prompts of the mean pairwise root-mean-square distance of their latents [G * K, ...].

    It falls towards 0 when a policy answers every prompt with one image: reward hacking that the reward can't show.
    """
    if per_prompt < 2:
        return 0.0
    groups = latents.double().flatten(1).view(-1, per_prompt, latents[0].numel())
    distances = torch.cdist(groups, groups) / groups.shape[-1] ** 0.5
    return float(distances.sum() / (len(groups) * per_prompt * (per_prompt - 1)))
