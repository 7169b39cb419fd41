"""Train the shapes VAE: `promptecho shapes train-vae`. About ten minutes on one core."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image

from promptecho.files import atomic_path
from promptecho.seeds import derive_seed
from promptecho.shapes.models import build_vae
from promptecho.shapes.render import damage, render
from promptecho.shapes.training import HybridOptimizer, run, trapezoid
from promptecho.shapes.world import wide_scene


def to_tensor(images: list) -> torch.Tensor:
    """PIL images to [N, 3, H, W] in [-1, 1], as diffusers' VaeImageProcessor does."""
    return (
        torch.from_numpy(np.stack([np.asarray(image, np.float32) for image in images])).permute(0, 3, 1, 2) / 127.5 - 1
    )


Picture = Callable[[np.random.Generator], Image.Image]


def wide_picture(rng: np.random.Generator) -> Image.Image:
    """A scene of the wide world."""
    return render(wide_scene(rng), rng)


def batch(seed: int, step: int, size: int, picture: Picture = wide_picture) -> torch.Tensor:
    """Step `step`'s images: mostly clean, some damaged, so that the decoder stays robust."""
    rng = np.random.default_rng(derive_seed(seed, "vae", step))
    images = [picture(rng) for _ in range(size)]
    return to_tensor([damage(image, rng) if rng.random() < 0.15 else image for image in images])


def train_vae(
    out: Path,
    log: Path,
    *,
    picture: Picture = wide_picture,
    init: Path | None = None,
    steps: int = 1400,
    batch_size: int = 24,
    seed: int = 0,
    kl_weight: float = 4e-3,
) -> None:
    """Train with L1 + L2 reconstruction and a small KL, measure the latents' mean and scale, save to `out`.

    `picture` draws one image; `kl_weight` is the KL's part of the loss. With `init`, training goes on from the VAE of
    that folder instead of from scratch.
    """
    torch.manual_seed(derive_seed(seed, "vae"))
    vae = build_vae()
    if init is not None:
        vae.load_state_dict(AutoencoderKL.from_pretrained(init, dtype=torch.float32).state_dict())
    optimizer = HybridOptimizer([vae], lr=2e-3, muon_lr=0.0, weight_decay=0.0)
    noise = torch.Generator().manual_seed(derive_seed(seed, "vae noise"))

    def step(index: int) -> dict[str, float]:
        images = batch(seed, index, batch_size, picture)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(images).latent_dist
            latents = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=noise)
            decoded = vae.decode(latents).sample.float()
        reconstruction = F.l1_loss(decoded, images) + F.mse_loss(decoded, images)
        kl = posterior.kl().float().mean() / posterior.mean[0].numel()
        (reconstruction + kl_weight * kl).backward()
        norm = optimizer.step(trapezoid(index, steps))
        return {"l1": float((decoded - images).abs().mean()), "kl": float(kl), "grad_norm": norm}

    def save(_step: int) -> None:
        with torch.no_grad():
            mean = vae.encode(batch(seed + 1, 0, 256, picture)).latent_dist.mean
        scale, shift = round(1 / float(mean.std()), 4), round(float(mean.mean()), 4)
        vae.register_to_config(scaling_factor=scale, shift_factor=shift)
        stored = build_vae()
        stored.register_to_config(scaling_factor=scale, shift_factor=shift)
        stored.load_state_dict(vae.state_dict())
        with atomic_path(out) as temporary:
            # The library's wrapper of `to` has lost `self`.
            stored.to(torch.float16).save_pretrained(temporary, safe_serialization=True)  # type: ignore[arg-type]

    run("train-vae", steps, log, step, checkpoint=save, checkpoint_every=200)
    vae.eval()
    save(steps)
