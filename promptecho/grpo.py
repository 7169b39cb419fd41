"""Flow-GRPO: policy gradient on the steps of a stochastic sampler, as pure tensor functions; no model and no I/O.

Source: Liu et al., "Flow-GRPO: Training Flow Matching Models via Online RL" (arXiv 2505.05470), and its code.
Convention as in awm.py: x_t = (1 - t) x0 + t noise, velocity noise - x0, and the sampler goes from t = 1 down. The ODE
becomes an SDE with the same marginals, so that each step is a draw from a normal distribution, whose density the
policy's ratio is made of. The clipped loss itself is `awm.policy_loss`: it is PPO's in both.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def step_std(t: Tensor, t_next: Tensor, *, t_second: float, noise_level: float) -> Tensor:
    """Standard deviation of what the steps from t to t_next (of one shape) add, in float64: sigma_t sqrt(t - t_next).

    sigma_t = noise_level sqrt(t / (1 - t)); at t = 1, where that is infinite, the sampler's second time `t_second`
    takes the place of t in the denominator, as in the published code.
    """
    t, t_next = t.double(), t_next.double()
    sigma = noise_level * (t / (1 - torch.where(t == 1, t_second, t))).sqrt()
    return sigma * (t - t_next).sqrt()


def step_mean(x_t: Tensor, velocity: Tensor, t: Tensor, t_next: Tensor, std: Tensor) -> Tensor:
    """Where steps from x_t [N, ...] lead without their noise, [N, ...] in float64; t, t_next and `std` are [N].

    x_t (1 + s^2 / (2 t) dt) + v (1 + s^2 (1 - t) / (2 t)) dt with dt = t_next - t and s = sigma_t, so that
    std^2 = -s^2 dt. With std 0 it is the Euler step of the ODE.
    """
    t, t_next, std = (value.double().view(-1, *[1] * (x_t.ndim - 1)) for value in (t, t_next, std))
    pull = std.square() / (2 * t)
    return x_t.double() * (1 - pull) + velocity.double() * (t_next - t - pull * (1 - t))


def step_log_prob(x_next: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Log-density of x_next [N, ...] under a normal with `mean` [N, ...] and `std` [N], as the mean over an image's
    dimensions; [N] in float64. The mean, not the sum, as in the published code: its clip ranges belong to it."""
    error = (x_next.double() - mean.double()).square().flatten(1).mean(1)
    std = std.double()
    return -error / (2 * std.square()) - std.log() - 0.5 * math.log(2 * math.pi)
