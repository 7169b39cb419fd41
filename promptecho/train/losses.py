"""The loss of an update by `training.algorithm`: what the algorithm makes of the velocity, and the KL terms of all."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from promptecho import awm, grpo, nft
from promptecho.config.training import TrainingConfig
from promptecho.t2i.base import T2iModel
from promptecho.train.data import Batch

Loss = tuple[torch.Tensor, dict[str, torch.Tensor]]


def velocity(
    family: T2iModel, x_t: torch.Tensor, t: torch.Tensor, cond: list, training: TrainingConfig
) -> torch.Tensor:
    """The policy's velocity as the loss sees it: with guidance only if `guides_loss`."""
    if training.guides_loss:
        return family.guided_velocity(x_t, t, cond, training.sampling.guidance_scale)
    return family.velocity(x_t, t, cond)


def log_prob_of(
    v: torch.Tensor, x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, stored: Mapping[str, torch.Tensor],
    training: TrainingConfig,
) -> torch.Tensor:  # fmt: skip
    """What the policy's ratio is made of, [N] in float64, for velocities v [N, ...]: of awm how well they match, of
    grpo the density of the sampler's step. nft has no ratio; 0 then."""
    if training.algorithm == "nft":
        return torch.zeros(len(v), dtype=torch.float64, device=v.device)
    if training.algorithm == "grpo":
        mean = grpo.step_mean(stored["x_t"], v, t, stored["t_next"], stored["std"])
        return grpo.step_log_prob(stored["x_next"], mean, stored["std"])
    return awm.matching_log_prob(v, x0, noise, t, weighting=training.weighting, power=training.ghuber_power)


def loss_of(family: T2iModel, batch: Batch, training: TrainingConfig) -> Loss:
    """Loss of a batch [T, n], which is a mean over images, and what to watch: through one forward pass of T * n images,
    or one for each size of image."""
    parts = batch.parts()
    if len(parts) == 1:
        return _loss_of_one_size(family, parts[0][1], training)
    found = [
        (len(images) / len(batch.prompt_ids), *_loss_of_one_size(family, part, training)) for images, part in parts
    ]
    loss = torch.stack([share * loss for share, loss, _ in found]).sum()
    return loss, {
        name: torch.stack([share * metrics[name] for share, _, metrics in found]).sum() for name in found[0][2]
    }


def _loss_of_one_size(family: T2iModel, batch: Batch, training: TrainingConfig) -> Loss:
    n_times = len(batch.t)
    x0 = batch.x0.repeat(n_times, *[1] * (batch.x0.ndim - 1))
    noise, t = batch.noise.flatten(0, 1), batch.t.flatten()
    stored = {name: value.flatten(0, 1) for name, value in batch.stored.items()}
    x_t = stored["x_t"] if "x_t" in stored else awm.interpolate(x0, noise, t)
    v = velocity(family, x_t, t, batch.cond * n_times, training)
    loss, metrics = _POLICY[training.algorithm](v, x0, noise, t, stored, batch, training)
    metrics = {"policy_loss": loss.detach(), **metrics}
    for name, reference, weight, kind in (
        ("kl_base", batch.base_velocity, training.kl_base.weight, training.kl_base.weighting),
        ("kl_ema", batch.ema_velocity, training.kl_ema.weight, "uniform"),
    ):
        if reference is not None:
            kl = awm.velocity_kl(v, reference.flatten(0, 1), t, weighting=kind)
            loss = loss + weight * kl
            metrics[name] = kl.detach()
    return loss.float(), metrics


def _ratio_loss(
    v: torch.Tensor, x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, stored: Mapping[str, torch.Tensor],
    batch: Batch, training: TrainingConfig,
) -> Loss:  # fmt: skip
    """PPO's clipped loss of the ratio to the policy at the iteration's start."""
    log_prob, old = log_prob_of(v, x0, noise, t, stored, training).view(batch.t.shape), batch.old_log_prob
    clip_range, per_timestep = training.clip_range, training.per_timestep
    loss = awm.policy_loss(log_prob, old, batch.advantages, clip_range=clip_range, per_timestep=per_timestep)
    with torch.no_grad():
        ratio = awm.policy_ratio(log_prob, old, per_timestep=per_timestep).mean()
        clipped = awm.clip_fraction(log_prob, old, clip_range=clip_range, per_timestep=per_timestep)
    return loss, {"ratio_mean": ratio, "clip_fraction": clipped}


def _nft_loss(
    v: torch.Tensor, x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, stored: Mapping[str, torch.Tensor],
    batch: Batch, training: TrainingConfig,
) -> Loss:  # fmt: skip
    """Each image's two matches, mixed by how good it is."""
    advantage = training.advantage
    assert advantage.clip is not None, "checked with the configuration"
    good = nft.optimality(batch.advantages, advantage.clip * advantage.factor).repeat(len(batch.t))
    old = stored["old_velocity"]
    loss = nft.nft_loss(v, old, x0, noise, t, good, beta=training.nft.beta).mean()
    with torch.no_grad():
        moved = awm.velocity_kl(v, old)
    return loss, {"old_deviation": moved}


_POLICY: Mapping[str, Callable[..., Loss]] = {"awm": _ratio_loss, "grpo": _ratio_loss, "nft": _nft_loss}
