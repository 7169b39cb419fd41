"""DiffusionNFT: reinforcement on the forward process, as pure tensor functions; no model and no I/O.

Source: Zheng et al., "DiffusionNFT: Online Diffusion Reinforcement with Forward Process" (arXiv 2509.16117), with the
weighting of its code. Convention as in awm.py: x_t = (1 - t) x0 + t noise, velocity
noise - x0. Like AWM it needs no stochastic sampler and no likelihood. Where AWM weights how well the policy matches an
image by the image's advantage, NFT mixes two matches by how good the image is: that of the policy, and that of a policy
which moved the other way from the one that sampled.
"""

from __future__ import annotations

from torch import Tensor

SMALLEST_ERROR = 1e-5  # of the published code


def optimality(advantages: Tensor, bound: float) -> Tensor:
    """How likely each image is a good one, r in 0-1: 1/2 at advantage 0, linear up to +-`bound`, clipped beyond."""
    return (0.5 + advantages / (2 * bound)).clamp(0, 1)


def nft_loss(
    velocity: Tensor, old_velocity: Tensor, x0: Tensor, noise: Tensor, t: Tensor, optimality: Tensor, *, beta: float
) -> Tensor:
    """The loss of each image, [N] in float64; velocities, x0 and noise [N, ...], t and optimality [N].

    With v+ = (1 - beta) v_old + beta v and v- = (1 + beta) v_old - beta v, and D(u) = |x_t - t u - x0|^2 / e(u), both
    averaged over an image's dimensions, where e(u) is the mean of |x_t - t u - x0|, at least 1e-5, without gradient:

        (r D(v+) + (1 - r) D(v-)) / beta

    D's weight and the division by beta are those of the published code; the paper's equation has the squared error
    of velocities without either. Its factor `adv_clip_max` is left out: a constant, which the loss's KL term is
    weighed against (docs/training.md).
    """
    shape = (-1, *[1] * (x0.ndim - 1))
    x0, old = x0.double(), old_velocity.double().detach()
    v, time = velocity.double(), t.double().view(shape)
    x_t = (1 - time) * x0 + time * noise.double()

    def distance(u: Tensor) -> Tensor:
        error = x_t - time * u - x0
        size = error.detach().abs().flatten(1).mean(1).clamp(min=SMALLEST_ERROR)
        return error.square().flatten(1).mean(1) / size

    good = distance((1 - beta) * old + beta * v)
    bad = distance((1 + beta) * old - beta * v)
    return (optimality * good + (1 - optimality) * bad) / beta
