"""Second half of an iteration: the update on the rollout's images.

Timesteps and noise are drawn before the first optimizer step. So everything that needs no gradient (the old
log-probabilities, the velocities of the base model and of the policy's moving average) is computed once, with the
weights as they were at the iteration's start, and serves all passes. With `timesteps.redraw: pass` every pass has
timesteps of its own, so this costs as many times more; an average that moved at every optimizer step could not be
precomputed at all, which is why ours moves per iteration.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, cast

import torch
import torch.distributed as dist
from peft import PeftModel

from promptecho import awm
from promptecho.config.training import TrainingConfig
from promptecho.grpo import step_std
from promptecho.phases import Phase
from promptecho.seeds import derive_seed
from promptecho.t2i.lengths import sorted_by_length
from promptecho.train.data import Batch, NotFiniteError, Rollout, batches_of, normal
from promptecho.train.deal import (
    deal,
    drawn_timesteps,
    draws_per_iteration,
    images_of_ranks,
    passes_of,
    timestep_groups,
)
from promptecho.train.failures import find_not_finite
from promptecho.train.losses import log_prob_of, loss_of, velocity
from promptecho.train.ranks import handed_over, rounds
from promptecho.train.selection import narrowed
from promptecho.train.sizes import Shape, by_shape, cut, spread
from promptecho.train.state import averaged
from promptecho.train.trainer import Trainer

_SMALL = ("small gradients", "counted gradients")


def draw_timesteps_and_noise(
    rollout: Rollout, images: list[int], training: TrainingConfig, iteration: int, grid: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """t [T, n] and noise [T, n, ...] of the given images, each from its image's seed, or from its prompt's.

    T is `timesteps.per_sample`, times the number of passes if each pass draws its own. `grid` are the sampler's
    timesteps, where the rollout's images do not have their own.
    """
    draws, times, noises = draws_per_iteration(training), [], []
    timesteps, row = training.timesteps, tuple(rollout.latents.shape[1:])
    for image, shape in zip(images, rollout.shapes_of(images), strict=True):
        owner = rollout.prompt_of(image)
        prompt, whole = rollout.prompts[owner].prompt_id, grid if rollout.sizes is None else rollout.sizes[owner].grid
        t, noise = [], []
        for draw in range(draws):
            own = rollout.number_of(image) if training.timesteps.shared_by == "none" else "shared"
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
                    grid=whole[timesteps.grid_first : int(len(whole) * timesteps.grid_share)],
                )
            )
            noise.append(spread(normal((training.timesteps.per_sample, *shape), *key, "noise"), row))
        times.append(torch.cat(t))
        noises.append(torch.cat(noise))
    device = rollout.latents.device
    if not images:
        rows = drawn_timesteps(training)
        return torch.zeros((rows, 0), device=device), torch.zeros((rows, *rollout.latents[:0].shape), device=device)
    return torch.cat(times, 1).to(device), torch.stack(noises, 1).to(device)


def precompute(trainer: Trainer, rollout: Rollout, iteration: int, average: dict[str, torch.Tensor]) -> Batch:
    """The images that this rank will train on (`images_of_ranks`), and everything without gradient on them.

    Each rank makes these passes on the images that it has sampled, and results and latents go to the ranks that meet
    the image in the update.

    Args:
        average: of the policy's weights, which are in the module.
    """
    training, engine, ranks = trainer.training, trainer.engine, dist.get_world_size()
    with trainer.phase(Phase.EXCHANGE) if rollout.chosen is not None else nullcontext():
        rollout = narrowed(rollout)
    share, total = rollout.share, rollout.total
    with trainer.phase(Phase.PRECOMPUTE):
        t, noise = draw_timesteps_and_noise(rollout, share, training, iteration, trainer.grid)
        policy = engine.weights()
        same = all(torch.equal(average[name], policy[name]) for name in policy)
        average_samples = training.sampling.policy == "ema" and not same
        steps: dict[str, torch.Tensor] = {}
        if rollout.path is not None:
            steps = steps_taken(rollout.path, t, trainer.grid, training.grpo.noise_level)

        def noised(row: int, images: list[int]) -> torch.Tensor:  # positions in the share
            if steps:
                return steps["x_t"][row, images]
            return awm.interpolate(rollout.latents[images], noise[row, images], t[row, images])

        of_policy = None if average_samples else velocities(trainer, rollout, noised, t)
        of_average, of_base = of_policy, None
        if average_samples or (training.kl_ema.weight > 0 and not same):
            engine.use_weights(average)
            of_average = velocities(trainer, rollout, noised, t)
            engine.use_weights(policy)
        if training.kl_base.weight > 0:
            if trainer.base is None:
                with cast(PeftModel, engine.model).disable_adapter():
                    of_base = velocities(trainer, rollout, noised, t)
            else:
                engine.use_weights(trainer.base)
                of_base = velocities(trainer, rollout, noised, t)
                engine.use_weights(policy)
    with trainer.phase(Phase.EXCHANGE):
        x0, old = rollout.latents, of_average if average_samples else of_policy  # of the weights that sampled
        assert old is not None, "computed for the one or the other"
        log_probs = log_probs_of(old, x0, noise, t, steps, rollout.shapes_of(share), training)
        stored = {"old_velocity": old} if training.algorithm == "nft" else steps
        wanted = images_of_ranks(total, training, iteration, ranks)

        def exchanged(values: torch.Tensor) -> torch.Tensor:  # [T, share, ...] to [T, mine, ...]
            return handed_over(values.transpose(0, 1).contiguous(), share, total, wanted).transpose(0, 1)

        mine, ema_velocity = wanted[dist.get_rank()], None
        if of_average is not None and training.kl_ema.weight > 0:
            ema_velocity = exchanged(of_average)
        base_velocity = exchanged(of_base) if of_base is not None else None
        old_log_prob = exchanged(log_probs)
        stored = {name: exchanged(value) for name, value in stored.items()}
        if mine != share:
            t, noise = draw_timesteps_and_noise(rollout, mine, training, iteration, trainer.grid)
        owners = [rollout.prompt_of(image) for image in mine]
        return Batch(
            [rollout.prompts[i].prompt_id for i in owners], handed_over(x0, share, total, wanted),
            [rollout.cond[i] for i in owners], rollout.advantages[mine], t, noise, old_log_prob, base_velocity,
            ema_velocity, stored, rollout.cond[0],
            shapes=None if rollout.sizes is None else rollout.shapes_of(mine),
            spare_shape=() if rollout.sizes is None else rollout.sizes[0].shape,
        )  # fmt: skip


def steps_taken(path: torch.Tensor, t: torch.Tensor, grid: torch.Tensor, noise_level: float) -> dict[str, torch.Tensor]:
    """The sampler's steps that begin at t [T, n], times of its `grid`, of images that came along `path`
    [n, steps + 1, ...]: `x_t` and `x_next` [T, n, ...], `t_next` and `std` [T, n]."""
    later = torch.cat([grid[1:], grid.new_zeros(1)]).to(t)
    index = (t[..., None] - grid.to(t)).abs().argmin(-1)
    images, t_next = torch.arange(len(path), device=path.device), later[index]
    std = step_std(t, t_next, t_second=float(grid[1]), noise_level=noise_level)
    return {"x_t": path[images, index], "x_next": path[images, index + 1], "t_next": t_next, "std": std}


@torch.no_grad()
def velocities(
    trainer: Trainer, rollout: Rollout, noised: Callable[[int, list[int]], torch.Tensor], t: torch.Tensor
) -> torch.Tensor:
    """Velocities [T, n, ...] of this rank's images, by the weights that are in the module.

    Args:
        noised: the latents of some images, by their positions in the share, at their times t[row].
    """
    training, done, share = trainer.training, trainer.phase.step, rollout.share
    size = training.micro_batch_size
    conds, shapes = [rollout.cond[rollout.prompt_of(image)] for image in share], rollout.shapes_of(share)
    order = sorted_by_length(
        trainer.family, range(len(share)), lambda index: len(conds[index]), lambda index: shapes[index]
    )
    chunks = [order[start : start + size] for start in range(0, len(share), size)]
    most = rounds(rollout.total, dist.get_world_size(), size)  # chunks of the rank with the largest share
    result = rollout.latents.new_zeros((*t.shape, *rollout.latents.shape[1:]))
    for row in range(len(t)):
        for chunk in chunks:
            for places, shape in by_shape([shapes[index] for index in chunk]):
                images = [chunk[place] for place in places]
                x_t, cond = cut(noised(row, images), shape), [conds[index] for index in images]
                found = velocity(trainer.family, x_t, t[row, images], cond, training)
                result[row, images] = spread(found, tuple(result.shape[2:]))
            trainer.phase.moved(trainer.phase.step + 1)
        # Under ZeRO-3 every pass is one of all ranks: those with less make one for nobody.
        for _ in range(most - len(chunks) if trainer.engine.partitioned else 0):
            one = rollout.latents.new_zeros((1, *rollout.latents.shape[1:]))
            velocity(trainer.family, one, torch.ones(1, device=one.device), rollout.cond[:1], training)
        done += most  # all ranks count alike, so that those that wait are ahead
        trainer.phase.moved(done)
    return result


def log_probs_of(
    v: torch.Tensor, x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, steps: dict[str, torch.Tensor],
    shapes: list[Shape], training: TrainingConfig,
) -> torch.Tensor:  # fmt: skip
    """`log_prob_of` [T, n] of images that have several `shapes`, for velocities v [T, n, ...], x0 [n, ...], and noise,
    t and `steps` [T, n, ...]."""
    found = torch.zeros(t.shape, dtype=torch.float64, device=t.device)
    for images, shape in by_shape(shapes):
        which: Any = slice(None) if len(images) == len(shapes) else images  # a slice copies nothing
        for row in range(len(t)):
            own = [cut(values[which], shape) for values in (v[row], x0, noise[row])]
            taken = {name: value[row][which] for name, value in steps.items()}
            found[row, which] = log_prob_of(own[0], own[1], own[2], t[row, which], taken, training)
    return found


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
    n_images = training.update_images
    rank, ranks, most = dist.get_rank(), dist.get_world_size(), engine.accumulation
    met = images_of_ranks(n_images, training, iteration, ranks)[rank]
    position = {image: index for index, image in enumerate(met)}
    shapes = batch.shapes or [()] * len(batch.cond)
    near = partial(
        sorted_by_length, family, tokens_of=lambda image: len(batch.cond[image]), shape_of=lambda image: shapes[image]
    )
    sums: dict[str, float] = defaultdict(float)
    watched: list[tuple[float, dict[str, torch.Tensor]]] = []  # read at the end: each read waits for the GPU
    steps = 0
    for pass_index in range(training.passes):
        groups = timestep_groups(training, pass_index)
        for images in batches_of(n_images, training, iteration, pass_index):
            dealt = deal(images, len(groups), ranks, training.micro_batch_size)[rank]
            whole = len(images) * len(groups) / (ranks * most)  # units in a pass, if all passes had equally many
            passes = passes_of(
                [(position[image], g) for image, g in dealt], len(groups), training.micro_batch_size, near
            )
            own = [[(image, groups[g]) for image, g in units] for units in passes]
            with trainer.phase(Phase.UPDATE, step=steps):
                for units in own + [[]] * (most - len(own)):
                    chunk = batch.at(units) if units else batch.nobody(len(groups[0]))
                    loss, metrics = loss_of(family, chunk, training)
                    weight = len(units) / whole
                    engine.backward(loss if weight == 1 else loss * weight)
                    watched.append((weight, metrics))
                if engine.overflow:  # same on all ranks; the step was skipped
                    what, guilty = find_not_finite(
                        lambda chunk: loss_of(family, chunk, training)[0], engine, batch, sum(own, []),
                        -(-len(images) * len(groups) // ranks),
                    )  # fmt: skip
                    raise NotFiniteError(what, batch.take(guilty, sum(groups, [])), steps)
                sums["grad_norm"] += engine.grad_norm
                for key, number in zip(_SMALL, engine.small_gradients(), strict=True):
                    sums[key] += number
                steps += 1
                if training.ema.decay is not None:
                    ema = averaged(ema, engine.weights(), training.ema.decay_at(engine.optimizer_steps))
    per_step = ("grad_norm", *_SMALL)
    with trainer.phase(Phase.EXCHANGE):
        sums = {**weighted_sums(watched), **sums}
        counts = dict.fromkeys(per_step, steps)
        means = _mean_over_ranks({key: value / counts.get(key, len(watched)) for key, value in sums.items()})
    small, counted = (means.pop(key) for key in _SMALL)
    return {**means, "grad_below_eps": small / counted if counted else 0.0}, ema


def weighted_sums(rows: list[tuple[float, dict[str, torch.Tensor]]]) -> dict[str, float]:
    """Sum over `rows` of weight times value, for each key, in float64 and in their order. Values, which are scalars
    on one device, are read in one go."""
    if not rows:
        return {}
    keys = list(rows[0][1])
    table = torch.stack([row[key].double() for _, row in rows for key in keys]).view(len(rows), -1).tolist()
    sums = dict.fromkeys(keys, 0.0)
    for (weight, _), values in zip(rows, table, strict=True):
        for key, value in zip(keys, values, strict=True):
            sums[key] += weight * value
    return sums


def _mean_over_ranks(values: dict[str, float]) -> dict[str, float]:
    """Every rank made equally many passes, weighted by their units, so the plain mean is the mean over units."""
    if dist.get_world_size() == 1:
        return values
    total = torch.tensor([values[key] for key in sorted(values)], dtype=torch.float64)
    dist.all_reduce(total)
    return dict(zip(sorted(values), (total / dist.get_world_size()).tolist(), strict=True))
