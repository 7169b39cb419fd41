"""Second half of an iteration: the AWM update on the rollout's images.

Timesteps and noise are drawn once per iteration and reused in every pass. So everything that needs no gradient
(the old log-probabilities, the velocities of the base model and of the policy's moving average) is computed once
and serves all passes.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
import torch.distributed as dist

from promptecho import awm
from promptecho.config.training import TrainingConfig
from promptecho.errors import PromptEchoError
from promptecho.seeds import derive_seed
from promptecho.t2i.base import Family
from promptecho.train.data import batches_of, normal
from promptecho.train.engine import Engine
from promptecho.train.rollout import Rollout


@dataclass
class Targets:
    """Per timestep and image [T, N, ...]: what the loss compares with. References are None when not used."""

    t: torch.Tensor
    noise: torch.Tensor
    old_log_prob: torch.Tensor
    base_velocity: torch.Tensor | None
    ema_velocity: torch.Tensor | None


def velocity(family: Family, x_t: torch.Tensor, t: torch.Tensor, cond: list, training: TrainingConfig) -> torch.Tensor:
    """The policy's velocity as the loss sees it: with guidance only if `train_guidance`."""
    if training.train_guidance:
        return family.guided_velocity(x_t, t, cond, training.sampling.guidance_scale)
    return family.velocity(x_t, t, cond)


def draw_timesteps_and_noise(
    rollout: Rollout, training: TrainingConfig, iteration: int, grid: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """t [T, N] and noise [T, N, ...], each image's from its own seed."""
    times, noises = [], []
    for image in range(len(rollout.latents)):
        prompt = rollout.prompts[rollout.prompt_of(image)].prompt_id
        key = (training.seed, "loss", iteration, prompt, image % rollout.images_per_prompt)
        times.append(
            awm.sample_timesteps(
                1,
                training.timesteps.per_sample,
                torch.Generator().manual_seed(derive_seed(*key, "t")),
                distribution=training.timesteps.distribution,
                shift=training.timesteps.shift,
                mean=training.timesteps.mean,
                std=training.timesteps.std,
                grid=grid,
            )
        )
        noises.append(normal((training.timesteps.per_sample, *rollout.latents.shape[1:]), *key, "noise"))
    device = rollout.latents.device
    return torch.cat(times, 1).to(device), torch.stack(noises, 1).to(device)


def precompute(
    family: Family, engine: Engine, rollout: Rollout, training: TrainingConfig, iteration: int,
    kl_ema: dict[str, torch.Tensor], grid: torch.Tensor,
) -> Targets:  # fmt: skip
    """Everything without gradient, for the images that this rank will train on."""
    t, noise = draw_timesteps_and_noise(rollout, training, iteration, grid)
    n_times, n_images = t.shape
    mine = images_of_rank(n_images, training, iteration)
    policy = engine.weights()
    same_as_policy = all(torch.equal(kl_ema[name], policy[name]) for name in policy)

    def velocities() -> torch.Tensor:
        result = torch.zeros((n_times, *rollout.latents.shape), device=rollout.latents.device)
        with torch.no_grad():
            for index in range(n_times):
                for start in range(0, len(mine), training.micro_batch_size):
                    chunk = mine[start : start + training.micro_batch_size]
                    x_t = awm.interpolate(rollout.latents[chunk], noise[index, chunk], t[index, chunk])
                    cond = [rollout.cond[rollout.prompt_of(i)] for i in chunk]
                    result[index, chunk] = velocity(family, x_t, t[index, chunk], cond, training)
        return result

    old = velocities()
    old_log_prob = torch.stack(
        [
            awm.matching_log_prob(
                old[i], rollout.latents, noise[i], t[i], weighting=training.weighting, power=training.ghuber_power
            )
            for i in range(n_times)
        ]
    )
    ema_velocity = base_velocity = None
    if training.kl_ema.weight > 0:
        if same_as_policy:
            ema_velocity = old
        else:
            engine.use_weights(kl_ema)
            ema_velocity = velocities()
            engine.use_weights(policy)
    if training.kl_base.weight > 0:
        with engine.model.disable_adapter():
            base_velocity = velocities()
    return Targets(t, noise, old_log_prob, base_velocity, ema_velocity)


def images_of_rank(n_images: int, training: TrainingConfig, iteration: int) -> list[int]:
    """All images that this rank meets in any pass, sorted."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    if world_size == 1:
        return list(range(n_images))
    return sorted(
        {
            image
            for pass_index in range(training.passes)
            for batch in batches_of(n_images, training.batch_size, training.seed, iteration, pass_index)
            for image in batch[rank::world_size]
        }
    )


def update(
    family: Family, engine: Engine, rollout: Rollout, targets: Targets, training: TrainingConfig, iteration: int,
    after_step, check_stop,
) -> dict[str, float]:  # fmt: skip
    """All optimizer steps of an iteration; returns the means of their metrics.

    Args:
        after_step: called after every optimizer step (moving averages).
        check_stop: called between optimizer steps; raises to leave the iteration.

    Raises:
        PromptEchoError: the loss or the gradient is not finite; names iteration and prompts.
    """
    sums: dict[str, float] = defaultdict(float)
    count = steps = 0
    rank, world_size = dist.get_rank(), dist.get_world_size()
    n_times, n_images = targets.t.shape
    groups = [[i] for i in range(n_times)] if training.per_timestep else [list(range(n_times))]
    for pass_index in range(training.passes):
        for batch in batches_of(n_images, training.batch_size, training.seed, iteration, pass_index):
            check_stop()
            mine = batch[rank::world_size]
            for start in range(0, len(mine), training.micro_batch_size):
                chunk = mine[start : start + training.micro_batch_size]
                for times in groups:
                    loss, metrics = _loss(family, rollout, targets, training, chunk, times)
                    if not torch.isfinite(loss):
                        ids = sorted({rollout.prompts[rollout.prompt_of(i)].prompt_id for i in chunk})
                        raise PromptEchoError(
                            f"iteration {iteration + 1}: the loss is {float(loss)} on prompts {', '.join(ids)}; "
                            "lower training.learning_rate or look at these prompts' images"
                        )
                    engine.backward(loss)
                    for key, value in metrics.items():
                        sums[key] += float(value)
                    count += 1
            if engine.grad_norm != engine.grad_norm or engine.grad_norm == float("inf"):
                raise PromptEchoError(
                    f"iteration {iteration + 1}: the gradient norm is {engine.grad_norm}; lower training.learning_rate"
                )
            sums["grad_norm"] += engine.grad_norm
            steps += 1
            after_step()
    means = {key: value / (steps if key == "grad_norm" else count) for key, value in sums.items()}
    return _mean_over_ranks(means)


def _mean_over_ranks(values: dict[str, float]) -> dict[str, float]:
    """Every rank did the same number of equally large chunks, so the plain mean is the mean over images."""
    if dist.get_world_size() == 1:
        return values
    total = torch.tensor([values[key] for key in sorted(values)], dtype=torch.float64)
    dist.all_reduce(total)
    return dict(zip(sorted(values), (total / dist.get_world_size()).tolist(), strict=True))


def _loss(
    family: Family, rollout: Rollout, targets: Targets, training: TrainingConfig, chunk: list[int], times: list[int]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss of some images at some timesteps, and what to watch."""
    x0 = rollout.latents[chunk].repeat(len(times), *[1] * (rollout.latents.ndim - 1))
    noise = targets.noise[times][:, chunk].flatten(0, 1)
    t = targets.t[times][:, chunk].flatten()
    cond = [rollout.cond[rollout.prompt_of(i)] for i in chunk] * len(times)
    v = velocity(family, awm.interpolate(x0, noise, t), t, cond, training)
    log_prob = awm.matching_log_prob(v, x0, noise, t, weighting=training.weighting, power=training.ghuber_power)
    log_prob = log_prob.view(len(times), len(chunk))
    old = targets.old_log_prob[times][:, chunk]
    options = {"clip_range": training.clip_range, "per_timestep": training.per_timestep}
    policy = awm.policy_loss(log_prob, old, rollout.advantages[chunk], **options)
    loss = policy
    metrics = {"policy_loss": policy.detach()}
    for name, reference, weight, kind in (
        ("kl_base", targets.base_velocity, training.kl_base.weight, training.kl_base.weighting),
        ("kl_ema", targets.ema_velocity, training.kl_ema.weight, "uniform"),
    ):
        if reference is not None:
            kl = awm.velocity_kl(v, reference[times][:, chunk].flatten(0, 1), t, weighting=kind)
            loss = loss + weight * kl
            metrics[name] = kl.detach()
    with torch.no_grad():
        metrics["ratio_mean"] = awm.policy_ratio(log_prob, old, per_timestep=training.per_timestep).mean()
        metrics["clip_fraction"] = awm.clip_fraction(log_prob, old, **options)
    return loss.float(), metrics
