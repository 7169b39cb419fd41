"""Latents as rows of 2 x 2 patches, as the transformers of Qwen-Image, FLUX.1 and FLUX.2 take them."""

from __future__ import annotations

import torch


def pack(latents: torch.Tensor) -> torch.Tensor:
    """[N, C, h, w] to [N, h/2 * w/2, 4 C]: each row a patch of 2 x 2."""
    n, channels, height, width = latents.shape
    patches = latents.view(n, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(n, (height // 2) * (width // 2), channels * 4)


def patch_channels(latents: torch.Tensor) -> torch.Tensor:
    """[N, C, h, w] to [N, 4 C, h/2, w/2]: what `pack` has in a row, as channels; FLUX.2's pipeline takes noise so."""
    n, _, height, width = latents.shape
    return pack(latents).transpose(1, 2).reshape(n, -1, height // 2, width // 2)


def unpack(packed: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The inverse of `pack`, for latents of `height` x `width`."""
    n, _, channels = packed.shape
    patches = packed.view(n, height // 2, width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(n, channels // 4, height, width)
