"""Second half of an iteration: the AWM update on the rollout's images.

Timesteps and noise are drawn before the first optimizer step. So everything that needs no gradient (the old
log-probabilities, the velocities of the base model and of the policy's moving average) is computed once, with the
weights as they were at the iteration's start, and serves all passes. With `timesteps.redraw: pass` every pass has
timesteps of its own, so this costs as many times more; an average that moved at every optimizer step could not be
precomputed at all, which is why ours moves per iteration.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import nullcontext

import torch
import torch.distributed as dist

from promptecho import awm
from promptecho.config.training import TrainingConfig
from promptecho.seeds import derive_seed
from promptecho.t2i.base import Family
from promptecho.train.data import Batch, NotFiniteError, Rollout, batches_of, normal
from promptecho.train.engine import Engine
from promptecho.train.ranks import any_rank, gather_by_index, rounds, share_of_rank

_SMALL = ("small gradients", "counted gradients")


def velocity(family: Family, x_t: torch.Tensor, t: torch.Tensor, cond: list, training: TrainingConfig) -> torch.Tensor:
    """The policy's velocity as the loss sees it: with guidance only if `train_guidance`."""
    if training.train_guidance:
        return family.guided_velocity(x_t, t, cond, training.sampling.guidance_scale)
    return family.velocity(x_t, t, cond)


def draw_timesteps_and_noise(
    rollout: Rollout, images: list[int], training: TrainingConfig, iteration: int, grid: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """t [T, n] and noise [T, n, ...] of the given images, each from its image's seed, or from its prompt's.

    T is `timesteps.per_sample`, times the number of passes if each pass draws its own.
    """
    draws = training.passes if training.timesteps.redraw == "pass" else 1
    times, noises = [], []
    timesteps = training.timesteps
    grid = grid[timesteps.grid_first : int(len(grid) * timesteps.grid_share)]
    for image in images:
        prompt = rollout.prompts[rollout.prompt_of(image)].prompt_id
        t, noise = [], []
        for draw in range(draws):
            own = image % rollout.images_per_prompt if training.timesteps.shared_by == "none" else "shared"
            key = (training.seed, "loss", iteration, prompt, own)
            key = (*key, "pass", draw) if draws > 1 else key
            t.append(
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
            noise.append(normal((training.timesteps.per_sample, *rollout.latents.shape[1:]), *key, "noise"))
        times.append(torch.cat(t))
        noises.append(torch.cat(noise))
    device = rollout.latents.device
    return torch.cat(times, 1).to(device), torch.stack(noises, 1).to(device)


def precompute(
    family: Family, engine: Engine, rollout: Rollout, training: TrainingConfig, iteration: int,
    kl_ema: dict[str, torch.Tensor], grid: torch.Tensor, boundary, listening=nullcontext,
) -> tuple[list[int], Batch]:  # fmt: skip
    """The images that this rank will train on (indices into the rollout), and everything without gradient on them.

    Passes are shared out like the images themselves, each image once, and their results exchanged: a rank meets an
    image in some of its passes, and other ranks meet it in others.

    Args:
        boundary: called with ("precompute", passes done), and with ("exchange", passes done) on all ranks together.
        listening: a context for the passes between two exchanges, which it may end early; `boundary` then raises.
    """
    total, world_size = len(rollout.latents), dist.get_world_size()
    mine = images_of_rank(total, training, iteration)
    share = share_of_rank(total, dist.get_rank(), world_size)
    t, noise = draw_timesteps_and_noise(rollout, share, training, iteration, grid)
    x0 = rollout.latents[share]
    cond = [rollout.cond[rollout.prompt_of(i)] for i in share]
    policy = engine.weights()
    same_as_policy = all(torch.equal(kl_ema[name], policy[name]) for name in policy)
    size, steps = training.micro_batch_size, 0
    chunks = [slice(start, start + size) for start in range(0, len(share), size)]
    # Under ZeRO-3 every pass is one of all ranks: those with less make one for nobody.
    spare = rounds(total, world_size, size) - len(chunks) if engine.partitioned else 0

    def velocities() -> torch.Tensor:
        nonlocal steps
        result = torch.zeros_like(noise)
        with torch.no_grad():
            for index in range(len(t)):
                for chunk in chunks:
                    x_t = awm.interpolate(x0[chunk], noise[index, chunk], t[index, chunk])
                    result[index, chunk] = velocity(family, x_t, t[index, chunk], cond[chunk], training)
                    steps += 1
                    boundary("precompute", steps)
                for _ in range(spare):
                    one = rollout.latents[:1]
                    velocity(family, one, torch.ones(1, device=one.device), rollout.cond[:1], training)
        return result

    def exchanged(values: torch.Tensor) -> torch.Tensor:
        """[T, share, ...] of every rank to [T, mine, ...]."""
        if world_size == 1:
            return values
        return gather_by_index(values.transpose(0, 1).contiguous(), share, total)[mine].transpose(0, 1)

    old = ema_velocity = base_velocity = None
    average_samples = training.sampling.policy == "ema" and not same_as_policy
    with listening():
        if average_samples:
            engine.use_weights(kl_ema)
        old = velocities()  # of the weights that sampled
        if average_samples:
            engine.use_weights(policy)
        if training.kl_ema.weight > 0:
            if same_as_policy or average_samples:
                ema_velocity = old
            else:
                engine.use_weights(kl_ema)
                ema_velocity = velocities()
                engine.use_weights(policy)
        if training.kl_base.weight > 0:
            with engine.model.disable_adapter():
                base_velocity = velocities()
    boundary("exchange", steps)
    old_log_prob = torch.stack(
        [
            awm.matching_log_prob(old[i], x0, noise[i], t[i], weighting=training.weighting, power=training.ghuber_power)
            for i in range(len(t))
        ]
    )
    ema_velocity, base_velocity = (
        None if value is None else exchanged(value) for value in (ema_velocity, base_velocity)
    )
    old_log_prob = exchanged(old_log_prob)
    if world_size > 1:
        t, noise = draw_timesteps_and_noise(rollout, mine, training, iteration, grid)
        x0, cond = rollout.latents[mine], [rollout.cond[rollout.prompt_of(i)] for i in mine]
    ids = [rollout.prompts[rollout.prompt_of(i)].prompt_id for i in mine]
    advantages = rollout.advantages[mine]
    return mine, Batch(ids, x0, cond, advantages, t, noise, old_log_prob, base_velocity, ema_velocity)


def images_of_rank(n_images: int, training: TrainingConfig, iteration: int) -> list[int]:
    """All images that this rank meets in any pass, sorted."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    if world_size == 1:
        return list(range(n_images))
    return sorted(
        {
            image
            for pass_index in range(training.passes)
            for batch in batches_of(n_images, training, iteration, pass_index)
            for image in batch[rank::world_size]
        }
    )


def update(
    family: Family, engine: Engine, mine: list[int], batch: Batch, n_images: int, training: TrainingConfig,
    iteration: int, after_step, boundary,
) -> dict[str, float]:  # fmt: skip
    """All optimizer steps of an iteration; returns the means of their metrics.

    Args:
        mine: which of the iteration's `n_images` images `batch` holds.
        after_step: called after every optimizer step (moving averages).
        boundary: called between optimizer steps with ("update", step); raises to leave the iteration.

    Raises:
        NotFiniteError: a loss or gradient is not finite, on every rank; the weights are as before that step.
    """
    sums: dict[str, float] = defaultdict(float)
    count = steps = 0
    rank, world_size = dist.get_rank(), dist.get_world_size()
    position = {image: index for index, image in enumerate(mine)}
    for pass_index in range(training.passes):
        groups = timestep_groups(training, pass_index)
        for images in batches_of(n_images, training, iteration, pass_index):
            boundary("update", steps)
            local = [position[image] for image in images[rank::world_size]]
            for start in range(0, len(local), training.micro_batch_size):
                for times in groups:
                    chunk = batch.take(local[start : start + training.micro_batch_size], times)
                    loss, metrics = awm_loss(family, chunk, training)
                    engine.backward(loss)
                    for key, value in metrics.items():
                        sums[key] += float(value)
                    count += 1
            if engine.overflow:  # same on all ranks; the step was skipped
                what, guilty = find_not_finite(family, engine, batch.take(local), training, groups)
                raise NotFiniteError(what, batch.take([local[i] for i in guilty], sum(groups, [])), steps)
            sums["grad_norm"] += engine.grad_norm
            for key, value in zip(_SMALL, engine.small_gradients(), strict=True):
                sums[key] += value
            steps += 1
            after_step()
    per_step = ("grad_norm", *_SMALL)
    means = _mean_over_ranks({key: value / (steps if key in per_step else count) for key, value in sums.items()})
    small, counted = (means.pop(key) for key in _SMALL)
    return {**means, "grad_below_eps": small / counted if counted else 0.0}


def timestep_groups(training: TrainingConfig, pass_index: int) -> list[list[int]]:
    """Rows of the drawn timesteps that go through one forward pass together, for one pass over the images."""
    n = training.timesteps.per_sample
    first = n * pass_index if training.timesteps.redraw == "pass" else 0
    rows = list(range(first, first + n))
    return [[row] for row in rows] if training.per_timestep else [rows]


def find_not_finite(
    family: Family, engine: Engine, batch: Batch, training: TrainingConfig, groups: list[list[int]]
) -> tuple[str, list[int]]:
    """Go through a batch image by image: ("loss is nan" | "gradient is not finite", indices of the images at fault).

    Nothing and no image where this rank's images are all right by themselves. Under ZeRO-3, where gradients exist in
    parts only, all of the batch is at fault if no single loss is, on any rank.
    """
    parameters = list(engine.parameters.values())
    guilty: dict[str, list[int]] = {"loss": [], "gradient": []}
    for index in range(len(batch.x0)):
        kinds = set()
        for times in groups:  # all of them on every rank: their passes may be common ones
            with torch.set_grad_enabled(not engine.partitioned):
                loss, _ = awm_loss(family, batch.take([index], times), training)
            if not torch.isfinite(loss):
                kinds.add("loss")
            elif not engine.partitioned:
                gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
                if not all(g is None or torch.isfinite(g).all() for g in gradients):
                    kinds.add("gradient")
        for kind in kinds:
            guilty[kind].append(index)
    if engine.partitioned and not any_rank(bool(guilty["loss"])):
        guilty["gradient"] = list(range(len(batch.x0)))
    what = next((what for what, images in guilty.items() if images), "")
    return what, guilty[what] if what else []


def _mean_over_ranks(values: dict[str, float]) -> dict[str, float]:
    """Every rank did the same number of equally large chunks, so the plain mean is the mean over images."""
    if dist.get_world_size() == 1:
        return values
    total = torch.tensor([values[key] for key in sorted(values)], dtype=torch.float64)
    dist.all_reduce(total)
    return dict(zip(sorted(values), (total / dist.get_world_size()).tolist(), strict=True))


def awm_loss(family: Family, batch: Batch, training: TrainingConfig) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss of a batch [T, n] through one forward pass of T * n images, and what to watch."""
    n_times, n_images = batch.t.shape
    x0 = batch.x0.repeat(n_times, *[1] * (batch.x0.ndim - 1))
    noise, t = batch.noise.flatten(0, 1), batch.t.flatten()
    v = velocity(family, awm.interpolate(x0, noise, t), t, batch.cond * n_times, training)
    log_prob = awm.matching_log_prob(v, x0, noise, t, weighting=training.weighting, power=training.ghuber_power)
    log_prob = log_prob.view(n_times, n_images)
    options = {"clip_range": training.clip_range, "per_timestep": training.per_timestep}
    policy = awm.policy_loss(log_prob, batch.old_log_prob, batch.advantages, **options)
    loss = policy
    metrics = {"policy_loss": policy.detach()}
    for name, reference, weight, kind in (
        ("kl_base", batch.base_velocity, training.kl_base.weight, training.kl_base.weighting),
        ("kl_ema", batch.ema_velocity, training.kl_ema.weight, "uniform"),
    ):
        if reference is not None:
            kl = awm.velocity_kl(v, reference.flatten(0, 1), t, weighting=kind)
            loss = loss + weight * kl
            metrics[name] = kl.detach()
    with torch.no_grad():
        ratio = awm.policy_ratio(log_prob, batch.old_log_prob, per_timestep=training.per_timestep)
        metrics["ratio_mean"] = ratio.mean()
        metrics["clip_fraction"] = awm.clip_fraction(log_prob, batch.old_log_prob, **options)
    return loss.float(), metrics
