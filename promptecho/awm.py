"""AWM, Advantage Weighted Matching: pure tensor functions, no model and no I/O.

Source: arXiv 2509.25050 (AWM), used by PromptEcho (arXiv 2604.12652, section 3.2). Convention of all
functions: x0 are clean latents, `noise` is standard normal, t lies in (0, 1], x_t = (1 - t) x0 + t noise, and the
velocity to match is noise - x0. The stand-in for the likelihood of an image is how well the policy's velocity
matches on it: a policy-gradient ratio of such "log-probabilities" needs no stochastic sampler, so images come
from a plain ODE.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Weighting = Literal["ghuber", "uniform", "t", "t2", "huber"]
AdvantageScale = Literal["none", "group_std", "global_std", "reward_std"]


def interpolate(x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t = (1 - t) x0 + t noise for x0, noise [N, ...] and t [N]."""
    t = t.view(-1, *[1] * (x0.ndim - 1))
    return (1 - t) * x0 + t * noise


def matching_log_prob(
    velocity: Tensor, x0: Tensor, noise: Tensor, t: Tensor, *, weighting: Weighting = "ghuber", power: float = 0.25
) -> Tensor:
    """How well `velocity[N, ...]` matches noise - x0, as a log-probability up to a constant; returns [N] in float64.

    With m the squared error averaged over all dimensions but the first:
    uniform: -m; t: -t m; t2: -t^2 m; huber: -(sqrt(m + 1e-10) - 1e-5) t;
    ghuber: -((m + 1e-10)^power - 1e-10^power) t / power.

    float64 because ratios are exponentials of differences of two nearly equal values.

    Raises:
        ValueError: unknown weighting.
    """
    error = velocity.double() - (noise.double() - x0.double())
    m = error.square().flatten(1).mean(1)
    t = t.double()
    match weighting:
        case "uniform":
            return -m
        case "t":
            return -t * m
        case "t2":
            return -(t**2) * m
        case "huber":
            return -(torch.sqrt(m + 1e-10) - 1e-5) * t
        case "ghuber":
            return -((m + 1e-10) ** power - 1e-10**power) * t / power
    raise ValueError(f"weighting {weighting!r}: choose ghuber, uniform, t, t2 or huber")


def group_advantages(
    rewards: Tensor, *, scale: AdvantageScale = "none", clip: float = 5.0, missing: Tensor | None = None,
    factor: float = 1.0,
) -> Tensor:  # fmt: skip
    """Advantages [G, K] of rewards [G prompts, K images]: reward minus the group's mean, scaled, clipped to +-clip,
    times `factor`.

    PromptEcho's published advantage is `scale="none"`. group_std divides by each group's standard deviation,
    global_std by that of all centred rewards (both with 1e-6 added, so that equal rewards give zero, not noise),
    reward_std by that of all rewards as they are, with 1e-4 added: AWM's code, which has clip 5 and factor 1/5.

    Images where `missing[G, K]` is true have no reward: they take no part in means and deviations and get advantage 0,
    as do all images of a group with fewer than two rewards.

    Raises:
        ValueError: unknown scale, or rewards that are not finite and not missing.
    """
    if scale not in ("none", "group_std", "global_std", "reward_std"):
        raise ValueError(f"advantage scale {scale!r}: choose none, group_std, global_std or reward_std")
    rewards = rewards.double()
    present = torch.ones_like(rewards, dtype=torch.bool) if missing is None else ~missing
    if not torch.isfinite(rewards[present]).all():
        bad = (present & ~torch.isfinite(rewards)).nonzero().tolist()
        raise ValueError(f"rewards that are not finite at (prompt, image) {bad}")
    if not present.all():
        return _advantages_of_some(rewards, present, scale).clamp(-clip, clip) * factor
    centred = rewards - rewards.mean(1, keepdim=True)
    if scale == "group_std":
        centred = centred / (rewards.std(1, keepdim=True, correction=0) + 1e-6)
    elif scale == "global_std":
        centred = centred / (centred.std(correction=0) + 1e-6)
    elif scale == "reward_std":
        centred = centred / (rewards.std(correction=0) + 1e-4)
    return centred.clamp(-clip, clip) * factor


def _advantages_of_some(rewards: Tensor, present: Tensor, scale: AdvantageScale) -> Tensor:
    """`group_advantages` before clipping, where `present[G, K]` is not true everywhere."""
    present = present & (present.sum(1, keepdim=True) > 1)
    n = present.sum(1, keepdim=True).clamp(min=1)
    values = rewards.where(present, 0.0)
    centred = (values - values.sum(1, keepdim=True) / n).where(present, 0.0)
    if scale == "group_std":
        centred = centred / ((centred.square().sum(1, keepdim=True) / n).sqrt() + 1e-6)
    elif scale == "global_std":
        centred = centred / ((centred.square().sum() / present.sum().clamp(min=1)).sqrt() + 1e-6)
    elif scale == "reward_std" and present.any():
        centred = centred / (rewards[present].std(correction=0) + 1e-4)
    return centred


def policy_ratio(log_prob: Tensor, old_log_prob: Tensor, *, per_timestep: bool = True) -> Tensor:
    """exp(log_prob - old) for [T, B], or of their means over T (then [1, B])."""
    if not per_timestep:
        log_prob, old_log_prob = log_prob.mean(0, keepdim=True), old_log_prob.mean(0, keepdim=True)
    return torch.exp(log_prob - old_log_prob)


def policy_loss(
    log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, *, clip_range: float, per_timestep: bool = True
) -> Tensor:
    """The clipped policy-gradient loss, a scalar: mean of max(-A r, -A clip(r, 1 - c, 1 + c)).

    `log_prob[T, B]` and `old_log_prob[T, B]` over T timesteps of B images, `advantages[B]`.
    """
    ratio = policy_ratio(log_prob, old_log_prob, per_timestep=per_timestep)
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return torch.maximum(-advantages * ratio, -advantages * clipped).mean()


def clip_fraction(log_prob: Tensor, old_log_prob: Tensor, *, clip_range: float, per_timestep: bool = True) -> Tensor:
    """Share of ratios outside 1 +- clip_range, for the metrics."""
    ratio = policy_ratio(log_prob, old_log_prob, per_timestep=per_timestep)
    return ((ratio - 1).abs() > clip_range).double().mean()


def velocity_kl(
    velocity: Tensor, reference: Tensor, t: Tensor | None = None, *, weighting: Literal["uniform", "elbo"] = "uniform"
) -> Tensor:
    """Mean squared difference of two velocities [N, ...], a scalar.

    elbo divides each sample by 2 s^2 with s = 0.7 sqrt(t / (1 - min(t, 0.99))), the noise level an SDE sampler of
    that strength would have at t [N].

    Raises:
        ValueError: unknown weighting, or elbo without t.
    """
    squared = (velocity.double() - reference.double()).square().flatten(1).mean(1)
    if weighting == "elbo":
        if t is None:
            raise ValueError("the elbo weighting needs the timesteps t")
        t = t.double()
        squared = squared / (2 * 0.49 * t / (1 - t.clamp(max=0.99)))
    elif weighting != "uniform":
        raise ValueError(f"KL weighting {weighting!r}: choose uniform or elbo")
    return squared.mean()


def sample_timesteps(
    n: int,
    per_sample: int,
    generator: torch.Generator,
    *,
    distribution: Literal["stratified_logit_normal", "uniform", "sampler_grid", "stratified_grid"],
    shift: float = 1.0,
    mean: float = 0.0,
    std: float = 1.0,
    grid: Tensor | None = None,
) -> Tensor:
    """Timesteps [per_sample, n] in (0, 1].

    stratified_logit_normal: row i draws its quantile from the i-th of `per_sample` equal strata, maps it through
    the logit-normal quantile function, then shifts t' = s t / (1 + (s - 1) t): every image sees early and late
    steps, which lowers the gradient's variance. uniform: independent draws. sampler_grid: the sampler's own
    timesteps, without replacement per image. stratified_grid: the sampler's own timesteps in `per_sample` runs of
    neighbours, one drawn from each (as AWM's published configurations).

    Raises:
        ValueError: unknown distribution; a grid distribution without a grid or with more draws than grid points.
    """
    if distribution == "stratified_logit_normal":
        u = torch.rand(per_sample, n, generator=generator, dtype=torch.float64)
        u = (torch.arange(per_sample, dtype=torch.float64)[:, None] + u) / per_sample
        t = torch.sigmoid(mean + std * torch.special.ndtri(u.clamp(1e-4, 1 - 1e-4)))
        t = shift * t / (1 + (shift - 1) * t)
    elif distribution == "uniform":
        t = 1 - torch.rand(per_sample, n, generator=generator, dtype=torch.float64)
    elif distribution in ("sampler_grid", "stratified_grid"):
        if grid is None or per_sample > len(grid):
            raise ValueError(f"{distribution} needs a grid of at least {per_sample} timesteps")
        if distribution == "stratified_grid":
            bounds = torch.tensor([len(grid) * i // per_sample for i in range(per_sample + 1)])[:, None]
            u = torch.rand(per_sample, n, generator=generator, dtype=torch.float64)
            t = grid.double().cpu()[bounds[:-1] + (u * (bounds[1:] - bounds[:-1])).long()]
        else:
            order = torch.rand(len(grid), n, generator=generator, dtype=torch.float64).argsort(0)[:per_sample]
            t = grid.double()[order.sort(0).values]
    else:
        raise ValueError(
            f"timestep distribution {distribution!r}: choose stratified_logit_normal, uniform, sampler_grid, "
            "stratified_grid"
        )
    return t.clamp(1e-3, 1.0).float()
