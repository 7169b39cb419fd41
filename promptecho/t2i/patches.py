"""Latents as rows of 2 x 2 patches, as the transformers of Qwen-Image and FLUX.1 take them."""

from __future__ import annotations

import torch


def pack(latents: torch.Tensor) -> torch.Tensor:
    """[N, C, h, w] to [N, h/2 * w/2, 4 C]: each row a patch of 2 x 2."""
    n, channels, height, width = latents.shape
    patches = latents.view(n, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(n, (height // 2) * (width // 2), channels * 4)


def unpack(packed: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The inverse of `pack`, for latents of `height` x `width`."""
    n, _, channels = packed.shape
    patches = packed.view(n, height // 2, width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(n, channels // 4, height, width)
