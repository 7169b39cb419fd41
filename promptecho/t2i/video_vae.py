"""What VAEs for video have in common, whether they are used for videos or for one frame."""

from __future__ import annotations

from typing import Any

import torch


def channel_statistics(vae: Any, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each channel of the latents [N, C, T, h, w] of `vae`, on the device and in the
    type of `like`."""
    values = vae.config.latents_mean, vae.config.latents_std
    mean, std = (torch.tensor(one).view(1, -1, 1, 1, 1).to(like.device, like.dtype) for one in values)
    return mean, std


def denormalised(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Latents [N, C, T, h, w] as `vae` takes them."""
    latents = latents.to(vae.dtype)
    mean, std = channel_statistics(vae, latents)
    return latents / (1.0 / std) + mean  # divided by 1 / std as in the pipelines: the same rounding
