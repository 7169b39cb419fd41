"""Second half of an iteration: the AWM update on the rollout's images.

Timesteps and noise are drawn before the first optimizer step. So everything that needs no gradient (the old
log-probabilities, the velocities of the base model and of the policy's moving average) is computed once, with the
weights as they were at the iteration's start, and serves all passes. With `timesteps.redraw: pass` every pass has
timesteps of its own, so this costs as many times more; an average that moved at every optimizer step could not be
precomputed at all, which is why ours moves per iteration.
"""

from __future__ import annotations

from collections import defaultdict

import torch
import torch.distributed as dist

from promptecho import awm
from promptecho.config.training import TrainingConfig
from promptecho.phases import Phase
from promptecho.seeds import derive_seed
from promptecho.t2i.base import T2iModel
from promptecho.t2i.lengths import sorted_by_length
from promptecho.train.data import Batch, NotFiniteError, Rollout, batches_of, normal
from promptecho.train.engine import Engine
from promptecho.train.ranks import any_rank, gather_by_index, rounds, share_of_rank
from promptecho.train.state import averaged
from promptecho.train.trainer import Trainer

_SMALL = ("small gradients", "counted gradients")


def velocity(
    family: T2iModel, x_t: torch.Tensor, t: torch.Tensor, cond: list, training: TrainingConfig
) -> torch.Tensor:
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
            key: tuple[int | str, ...] = (training.seed, "loss", iteration, prompt, own)
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


def precompute(trainer: Trainer, rollout: Rollout, iteration: int, average: dict[str, torch.Tensor]) -> Batch:
    """The images that this rank will train on (`images_of_rank`), and everything without gradient on them.

    Passes are shared out like the images themselves, each image once, and their results exchanged: a rank meets an
    image in some of its passes, and other ranks meet it in others.

    Args:
        average: of the policy's weights, which are in the module.
    """
    training, engine, total = trainer.training, trainer.engine, len(rollout.latents)
    share = share_of_rank(total, dist.get_rank(), dist.get_world_size())
    with trainer.phase(Phase.PRECOMPUTE):
        t, noise = draw_timesteps_and_noise(rollout, share, training, iteration, trainer.grid)
        policy = engine.weights()
        same = all(torch.equal(average[name], policy[name]) for name in policy)
        average_samples = training.sampling.policy == "ema" and not same
        of_policy = None if average_samples else velocities(trainer, rollout, share, t, noise)
        of_average, of_base = of_policy, None
        if average_samples or (training.kl_ema.weight > 0 and not same):
            engine.use_weights(average)
            of_average = velocities(trainer, rollout, share, t, noise)
            engine.use_weights(policy)
        if training.kl_base.weight > 0:
            with engine.model.disable_adapter():
                of_base = velocities(trainer, rollout, share, t, noise)
    with trainer.phase(Phase.EXCHANGE):
        x0, old = rollout.latents[share], of_average if average_samples else of_policy  # of the weights that sampled
        assert old is not None, "computed for the one or the other"
        log_probs = [
            awm.matching_log_prob(old[i], x0, noise[i], t[i], weighting=training.weighting, power=training.ghuber_power)
            for i in range(len(t))
        ]
        mine = images_of_rank(total, training, iteration)
        ema_velocity = None
        if of_average is not None and training.kl_ema.weight > 0:
            ema_velocity = exchanged(of_average, share, mine, total)
        base_velocity = exchanged(of_base, share, mine, total) if of_base is not None else None
        old_log_prob = exchanged(torch.stack(log_probs), share, mine, total)
        if mine != share:
            t, noise = draw_timesteps_and_noise(rollout, mine, training, iteration, trainer.grid)
        owners = [rollout.prompt_of(image) for image in mine]
        return Batch(
            [rollout.prompts[i].prompt_id for i in owners], rollout.latents[mine], [rollout.cond[i] for i in owners],
            rollout.advantages[mine], t, noise, old_log_prob, base_velocity, ema_velocity,
        )  # fmt: skip


@torch.no_grad()
def velocities(
    trainer: Trainer, rollout: Rollout, share: list[int], t: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """Velocities [T, n, ...] of the images in `share`, by the weights that are in the module."""
    training, done = trainer.training, trainer.phase.step
    size = training.micro_batch_size
    conds = [rollout.cond[rollout.prompt_of(image)] for image in share]
    order = sorted_by_length(trainer.family, range(len(share)), lambda index: len(conds[index]))
    chunks = [order[start : start + size] for start in range(0, len(share), size)]
    most = rounds(len(rollout.latents), dist.get_world_size(), size)  # chunks of the rank with the largest share
    result = torch.zeros_like(noise)
    for row in range(len(t)):
        for chunk in chunks:
            cond, images = [conds[index] for index in chunk], [share[index] for index in chunk]
            x_t = awm.interpolate(rollout.latents[images], noise[row, chunk], t[row, chunk])
            result[row, chunk] = velocity(trainer.family, x_t, t[row, chunk], cond, training)
            trainer.phase.moved(trainer.phase.step + 1)
        # Under ZeRO-3 every pass is one of all ranks: those with less make one for nobody.
        for _ in range(most - len(chunks) if trainer.engine.partitioned else 0):
            one = rollout.latents[:1]
            velocity(trainer.family, one, torch.ones(1, device=one.device), rollout.cond[:1], training)
        done += most  # all ranks count alike, so that those that wait are ahead
        trainer.phase.moved(done)
    return result


def exchanged(values: torch.Tensor, share: list[int], mine: list[int], total: int) -> torch.Tensor:
    """Collective: [T, share, ...] of every rank to [T, mine, ...]; the shares are all `total` images."""
    if dist.get_world_size() == 1:
        return values
    return gather_by_index(values.transpose(0, 1).contiguous(), share, total)[mine].transpose(0, 1)


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
    trainer: Trainer, batch: Batch, iteration: int, ema: dict[str, torch.Tensor]
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """All optimizer steps of an iteration: the means of their metrics, and the moving average `ema` after them.

    Args:
        batch: what `precompute` made.
        ema: the average of weights that is evaluated (`training.ema`), where there is one.

    Raises:
        NotFiniteError: a loss or gradient is not finite, on every rank; the weights are as before that step.
        StopRequestedError: on every rank, between two steps.
    """
    family, engine, training = trainer.family, trainer.engine, trainer.training
    n_images = training.prompts_per_iteration * training.images_per_prompt
    position = {image: index for index, image in enumerate(images_of_rank(n_images, training, iteration))}
    sums: dict[str, float] = defaultdict(float)
    count = steps = 0
    for pass_index in range(training.passes):
        groups = timestep_groups(training, pass_index)
        for images in batches_of(n_images, training, iteration, pass_index):
            with trainer.phase(Phase.UPDATE, step=steps):
                local = [position[image] for image in images[dist.get_rank() :: dist.get_world_size()]]
                local = sorted_by_length(family, local, lambda image: len(batch.cond[image]))
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
                for key, number in zip(_SMALL, engine.small_gradients(), strict=True):
                    sums[key] += number
                steps += 1
                if training.ema.decay is not None:
                    ema = averaged(ema, engine.weights(), training.ema.decay_at(engine.optimizer_steps))
    per_step = ("grad_norm", *_SMALL)
    with trainer.phase(Phase.EXCHANGE):
        means = _mean_over_ranks({key: value / (steps if key in per_step else count) for key, value in sums.items()})
    small, counted = (means.pop(key) for key in _SMALL)
    return {**means, "grad_below_eps": small / counted if counted else 0.0}, ema


def timestep_groups(training: TrainingConfig, pass_index: int) -> list[list[int]]:
    """Rows of the drawn timesteps that go through one forward pass together, for one pass over the images."""
    n = training.timesteps.per_sample
    first = n * pass_index if training.timesteps.redraw == "pass" else 0
    rows = list(range(first, first + n))
    return [[row] for row in rows] if training.per_timestep else [rows]


def find_not_finite(
    family: T2iModel, engine: Engine, batch: Batch, training: TrainingConfig, groups: list[list[int]]
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


def awm_loss(family: T2iModel, batch: Batch, training: TrainingConfig) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss of a batch [T, n] through one forward pass of T * n images, and what to watch."""
    n_times, n_images = batch.t.shape
    x0 = batch.x0.repeat(n_times, *[1] * (batch.x0.ndim - 1))
    noise, t = batch.noise.flatten(0, 1), batch.t.flatten()
    v = velocity(family, awm.interpolate(x0, noise, t), t, batch.cond * n_times, training)
    log_prob = awm.matching_log_prob(v, x0, noise, t, weighting=training.weighting, power=training.ghuber_power)
    log_prob = log_prob.view(n_times, n_images)
    clip_range, per_timestep = training.clip_range, training.per_timestep
    policy = awm.policy_loss(
        log_prob, batch.old_log_prob, batch.advantages, clip_range=clip_range, per_timestep=per_timestep
    )
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
        ratio = awm.policy_ratio(log_prob, batch.old_log_prob, per_timestep=per_timestep)
        metrics["ratio_mean"] = ratio.mean()
        metrics["clip_fraction"] = awm.clip_fraction(
            log_prob, batch.old_log_prob, clip_range=clip_range, per_timestep=per_timestep
        )
    return loss.float(), metrics
