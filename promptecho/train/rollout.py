"""First half of an iteration: prompts -> images -> rewards, shared out over the ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.distributed as dist

from promptecho import grpo
from promptecho.errors import RewardError
from promptecho.memory import in_phase
from promptecho.phases import Phase
from promptecho.source_images import Prompt
from promptecho.t2i.lengths import sorted_by_length
from promptecho.t2i.lora import merged
from promptecho.train.data import Rollout, TrainingPrompt, normal
from promptecho.train.failures import report_reward
from promptecho.train.ranks import agree, gather_by_index, handed_over, rounds, share_of_rank
from promptecho.train.scoring import NotFiniteRewardError, RolloutScores, WeightedReward, too_many_failures
from promptecho.train.sizes import Shape, TrainingSize, spread
from promptecho.train.trainer import Trainer

REPLIES_FIX = "raise max_new_tokens if replies are cut off, write another template, or take a better VLM"


@dataclass(frozen=True)
class Series:
    """Images to make, prompt-major: `per_prompt` of each prompt.

    `key`, with the prompt's id and the image's number in its group, seeds each image's noise; `called` is what messages
    call an image, with {image} for that number.
    """

    prompts: list[TrainingPrompt]
    per_prompt: int
    key: tuple[int | str, ...]
    called: str

    @property
    def total(self) -> int:
        return len(self.prompts) * self.per_prompt


@dataclass
class Sampled:
    """This rank's share of a series."""

    series: Series
    cond: list[torch.Tensor]  # per prompt
    mine: list[int]  # which of the series' images
    latents: torch.Tensor  # [len(mine), ...], float32; rows where images differ in size (sizes.py)
    sizes: list[TrainingSize]  # per prompt
    path: torch.Tensor | None = None  # [len(mine), steps + 1, ...], float32: what a stochastic sampler passed through


def sample(
    trainer: Trainer, weights: dict[str, torch.Tensor], series: Series, upcoming: Iterable[Prompt] = (), *,
    submit: Callable[[list, list[TrainingPrompt], list[str]], None] | None = None, noise_level: float | None = None,
) -> Sampled:  # fmt: skip
    """Make this rank's share of the images with `weights`, which stay in the module, and give them to the rewarder.

    Args:
        upcoming: prompts that come next, for the prompt cache.
        submit: gets them, with their prompts and what they are called, in place of the rewarder.
        noise_level: of the stochastic sampler that makes them (`training.grpo`); None: the plain ODE.

    Raises:
        OutOfMemoryError: on the rank that met it.
        StopRequestedError: on every rank.
    """
    training = trainer.training
    size, world_size = training.sampling.batch_size, dist.get_world_size()
    mine = share_of_rank(series.total, dist.get_rank(), world_size)
    latents, paths, done = [], [], 0
    submit = submit or trainer.rewarder.submit
    with trainer.phase(Phase.SAMPLE):
        trainer.engine.use_weights(weights)
        with in_phase(Phase.ENCODE):
            cond = trainer.encoder.encode([trainer.asked(prompt) for prompt in series.prompts], upcoming)
        sizes = [trainer.sizes.size_of(prompt.prompt_id) for prompt in series.prompts]

        def shape_of(image: int) -> Shape:
            return sizes[image // series.per_prompt].shape

        mine = sorted_by_length(trainer.family, mine, lambda image: len(cond[image // series.per_prompt]), shape_of)
        batches = [
            list(one[start : start + size])
            for one in (list(group) for _, group in groupby(mine, shape_of))
            for start in range(0, len(one), size)
        ]
        if training.zero_stage == 3:  # every pass is one of all ranks: those with less sample an image for nobody
            batches += [[]] * (rounds(series.total, world_size, size) - len(batches))
        row = trainer.sizes.row
        latents.append(torch.zeros((0, *row), device=cond[0].device))
        with merged(trainer.engine.model, half=trainer.segment.config.compute.fold_adapter):
            for batch in batches:
                groups, numbers = zip(*(divmod(image, series.per_prompt) for image in batch or [0]), strict=True)
                prompts = [series.prompts[group] for group in groups]
                keys = [(p.prompt_id, number) for p, number in zip(prompts, numbers, strict=True)]
                noise = [normal(sizes[groups[0]].shape, *series.key, *key) for key in keys]
                began, texts = torch.stack(noise).to(cond[0].device), [cond[group] for group in groups]
                if noise_level is None:
                    x0 = trainer.family.sample(
                        began,
                        texts,
                        num_inference_steps=training.sampling.num_inference_steps,
                        guidance_scale=training.sampling.guidance_scale,
                        schedule=training.sampling.schedule,
                    )
                else:
                    path = stochastic_path(trainer, began, texts, [(*series.key, *key) for key in keys], noise_level)
                    x0 = path[:, -1]
                if not batch:
                    continue
                latents.append(spread(x0.float(), row))
                if noise_level is not None:
                    paths.append(path)
                with in_phase(Phase.DECODE):
                    images = trainer.family.decode(x0)
                submit(images, prompts, [series.called.format(image=n) for n in numbers])
                done += len(batch)
                trainer.phase.moved(done)
    if noise_level is not None:
        empty = latents[0].new_zeros((0, len(trainer.grid) + 1, *row))
        return Sampled(series, cond, mine, torch.cat(latents), sizes, torch.cat([empty, *paths]))
    return Sampled(series, cond, mine, torch.cat(latents), sizes)


@torch.no_grad()
def stochastic_path(
    trainer: Trainer, noise: torch.Tensor, cond: list[torch.Tensor], keys: list[tuple[int | str, ...]],
    noise_level: float,
) -> torch.Tensor:  # fmt: skip
    """All latents [N, steps + 1, ...] in float32 that Flow-GRPO's sampler passes through from `noise` [N, ...]; each
    image's `keys` seed what its steps add. It looks at the times of the plain ODE, where the update looks again."""
    guidance_scale, x = trainer.training.sampling.guidance_scale, noise.float()
    path, grid = [x], trainer.grid.to(x)
    later = torch.cat([grid[1:], grid.new_zeros(1)])
    for step, (t, t_next) in enumerate(zip(grid, later, strict=True)):
        times, next_times = t.expand(len(x)), t_next.expand(len(x))
        v = trainer.family.guided_velocity(x, times, cond, guidance_scale)
        std = grpo.step_std(times, next_times, t_second=float(grid[1]), noise_level=noise_level)
        added = torch.stack([normal(tuple(x.shape[1:]), *key, "step", step) for key in keys]).to(x)
        mean = grpo.step_mean(x, v, times, next_times, std)
        x = (mean + std.view(-1, *[1] * (x.ndim - 1)) * added).float()
        path.append(x)
    return torch.stack(path, 1)


def score(trainer: Trainer, sampled: Sampled) -> tuple[torch.Tensor, dict[str, float]]:
    """Collective: rewards [rewards, G, K] of all images of the series in float64, NaN where an image has none; and
    metrics about failed replies and what rewards tell beside.

    Raises:
        PromptEchoError: on every rank; a reward failed or is not finite (the image and its label are dumped), memory
            ran out, or too many replies are unreadable.
        StopRequestedError: on every rank.
    """
    series, iteration = sampled.series, trainer.phase.iteration
    with trainer.phase(Phase.REWARD):
        try:
            local = trainer.rewarder.collect(trainer.phase.moved)
        except NotFiniteRewardError as error:
            raise report_reward(error, trainer.segment, iteration) from error
    with trainer.phase(Phase.EXCHANGE):
        rows = torch.cat([local.rewards, local.replies, local.failed, local.measures]).T.contiguous()
        rows = gather_by_index(rows, sampled.mine, series.total).T.contiguous()
        sizes = [len(trainer.rewards)] * 3 + [len(local.measures)]
        rewards, replies, failed, measures = rows.split(sizes)
        scores = RolloutScores(rewards, replies, failed, local.examples, measures)
        if (problem := too_many_failures(trainer.rewards, scores)) is not None:
            index, message = problem
            example = local.examples[index]  # of this rank; another one may have none
            agree(RewardError(f"iteration {iteration}: {message}; {example}; {REPLIES_FIX}") if example else None)
            raise RewardError(f"iteration {iteration}: {message}; {REPLIES_FIX}")
    rewards = scores.rewards.reshape(len(trainer.rewards), len(series.prompts), -1)
    return rewards, reply_metrics(trainer.rewards, scores) | measure_metrics(trainer.rewards, scores)


def reply_metrics(rewards: list[WeightedReward], scores: RolloutScores) -> dict[str, float]:
    """Replies that could not be read, their share, and images that have no reward; {} where nothing is read."""
    found: dict[str, float] = {}
    for index, entry in enumerate(rewards):
        if replies := float(scores.replies[index].sum()):
            name, failed = f"{index}_{entry.metric}", float(scores.failed[index].sum())
            found |= {f"failed_replies_{name}": int(failed), f"failed_share_{name}": failed / replies}
            found[f"missing_rewards_{name}"] = int(scores.rewards[index].isnan().sum())
    return found


def measure_metrics(rewards: list[WeightedReward], scores: RolloutScores) -> dict[str, float]:
    """Means over images of what rewards tell beside their numbers; without those that are told of no image."""
    names = [f"{name}_{index}_{entry.metric}" for index, entry in enumerate(rewards) for name in entry.measures]
    told = zip(names, map(present, scores.measures), strict=True)
    return {name: float(values.mean()) for name, values in told if len(values)}


def advantage_sizes(parts: torch.Tensor, rewards: list[WeightedReward]) -> dict[str, float]:
    """Mean size of each reward's weighted advantages [R, G, K], where there are several: which of them decides."""
    if len(rewards) < 2:
        return {}
    return {f"advantage_size_{i}_{entry.metric}": float(parts[i].abs().mean()) for i, entry in enumerate(rewards)}


def reward_metrics(rollout: Rollout, rewards: list[WeightedReward]) -> dict[str, float]:
    """What to watch about an iteration's rewards.

    Images that lack a reward are left out, and a group of fewer than two whole images counts as one without spread.
    """
    combined = torch.stack([entry.weight * values for entry, values in zip(rewards, rollout.rewards, strict=True)])
    combined = combined.sum(0)
    spread, sizes = group_std(combined), rollout.advantages.abs()
    chosen = {} if rollout.chosen is None else {"update_advantage_abs_mean": float(sizes[rollout.chosen].mean())}
    return {
        "reward_mean": float(present(combined).mean()),
        "reward_std": float(present(combined).std(correction=0)),
        "reward_group_std": float(spread.mean()),
        "zero_std_groups": float((spread < 1e-8).double().mean()),
        **{f"reward_{i}_{entry.metric}": float(present(rollout.rewards[i]).mean()) for i, entry in enumerate(rewards)},
        "advantage_abs_mean": float(sizes.mean()),
        **chosen,
        "diversity": rollout.diversity,
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


def group_diversity(sampled: Sampled) -> float:
    """Collective: mean over prompts of the mean pairwise root-mean-square distance of their latents.

    It falls towards 0 when a policy answers every prompt with one image: reward hacking that the reward can't show.
    """
    per_prompt, n_prompts = sampled.series.per_prompt, len(sampled.series.prompts)
    if per_prompt < 2:
        return 0.0
    rank, ranks = dist.get_rank(), dist.get_world_size()
    groups = [share_of_rank(n_prompts, each, ranks) for each in range(ranks)]
    wanted = [[g * per_prompt + k for g in each for k in range(per_prompt)] for each in groups]
    mine = handed_over(sampled.latents, sampled.mine, sampled.series.total, wanted)
    mine = mine.double().reshape(len(groups[rank]), per_prompt, math.prod(mine.shape[1:]))
    counts = {math.prod(sampled.sizes[g].shape): None for g in groups[rank]}  # rows may have zeros behind the latents
    scale: float | torch.Tensor = max(counts, default=1) ** 0.5
    if len(counts) > 1:
        scale = mine.new_tensor([math.prod(sampled.sizes[g].shape) for g in groups[rank]]).sqrt().view(-1, 1, 1)
    distances = gather_by_index(torch.cdist(mine, mine) / scale, groups[rank], n_prompts)
    return float(distances.sum() / (n_prompts * per_prompt * (per_prompt - 1)))
