"""The VAE of moving shapes, whose weights are computed in place of being trained.

On a CPU the three-dimensional convolutions of a VAE for video take longer to train than all other models of this world
together. Blocks of 4 x 4 pixels of one or two flat shapes have so little in them that their largest principal
components say it, so the real class gets weights with which it is that projection: a convolution projects, a large
constant beside what it projects keeps the normalisation from changing that, and silu(x) - silu(-x) = x takes the
nonlinearity out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import patchify

from promptecho.moving.models import CHANNELS, PATCH, build_vae
from promptecho.moving.render import draw_frames
from promptecho.moving.world import random_movers
from promptecho.seeds import derive_seed
from promptecho.shapes.train_vae import to_tensor

CONSTANT = 1024.0  # so much more than what is projected that its square is the whole norm
CERTAIN = -20.0  # log-variance of latents


def videos(seed: int, key: str, size: int) -> torch.Tensor:
    """Videos of the world, [size, 3, frames, 32, 32] in [-1, 1]; `key` names the draw."""
    rng = np.random.default_rng(derive_seed(seed, "moving", key))
    return torch.stack([to_tensor(draw_frames(random_movers(rng), rng)) for _ in range(size)]).transpose(1, 2)


def fit_vae(seed: int = 0, size: int = 400) -> AutoencoderKLWan:
    """The VAE for which the squared error of `size` videos is least among linear ones; its latents' mean and scale are
    in its configuration."""
    blocks = patchify(videos(seed, "vae", size), PATCH).transpose(0, 1).flatten(1).double()  # [48, blocks]
    mean = blocks.mean(1)
    _, vectors = torch.linalg.eigh((blocks - mean[:, None]).cov())
    basis = vectors.flip(1)[:, :CHANNELS]  # [48, channels]
    basis = basis * basis.sum(0).sign()  # an eigenvector's sign is nobody's choice
    spread = (basis.T @ (blocks - mean[:, None])).std(1)
    vae: Any = build_vae([0.0] * CHANNELS, [round(float(value), 4) for value in (spread * spread.mean()).sqrt()])
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.zero_()
        _pass_through(vae.encoder, basis.T, -(basis.T @ mean), torch.eye(CHANNELS), torch.zeros(CHANNELS))
        _pass_through(vae.decoder, torch.eye(CHANNELS), torch.zeros(CHANNELS), basis, mean)
        # The encoder's 2 x channels: means, which are `torch.eye`'s, and log-variances.
        vae.quant_conv.weight[:, :, 0, 0, 0] = torch.eye(2 * CHANNELS)
        vae.quant_conv.bias[CHANNELS:] = CERTAIN
        vae.post_quant_conv.weight[:, :, 0, 0, 0] = torch.eye(CHANNELS)
    return vae.eval()


def _pass_through(
    part: Any, first: torch.Tensor, bias: torch.Tensor, last: torch.Tensor, last_bias: torch.Tensor
) -> None:
    """Give an encoder or decoder, all of whose weights are 0, weights with which it computes
    last @ (first @ x + bias) + last_bias at every place."""
    n, (conv_in, norm, conv_out) = CHANNELS, (part.conv_in, part.norm_out, part.conv_out)
    now = (slice(None), slice(None), -1, 1, 1)  # the tap of a causal convolution that sees the place itself
    conv_in.weight[now] = torch.cat([first, -first, torch.zeros(1, first.shape[1])]).float()
    conv_in.bias[:] = torch.cat([bias, -bias, torch.tensor([CONSTANT])]).float()
    norm.gamma[:] = CONSTANT / norm.scale
    conv_out.weight[: len(last)][now] = torch.cat([last, -last, torch.zeros(len(last), 1)], 1).float()
    conv_out.bias[: len(last)] = last_bias.float()
    assert conv_in.weight.shape[0] == 2 * n + 1, "the channels, their opposites and the constant"
