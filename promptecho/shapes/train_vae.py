"""Train the shapes VAE: `promptecho shapes train-vae`. About ten minutes on one core."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

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


def batch(seed: int, step: int, size: int) -> torch.Tensor:
    """Step `step`'s images: mostly clean scenes of the wide world, some damaged, so that the decoder stays robust."""
    rng = np.random.default_rng(derive_seed(seed, "vae", step))
    images = [render(wide_scene(rng), rng) for _ in range(size)]
    return to_tensor([damage(image, rng) if rng.random() < 0.15 else image for image in images])


def train_vae(out: Path, log: Path, *, steps: int = 1400, batch_size: int = 24, seed: int = 0) -> None:
    """Train with L1 + L2 reconstruction and a small KL, measure the latents' mean and scale, save to `out`."""
    torch.manual_seed(derive_seed(seed, "vae"))
    vae = build_vae()
    optimizer = HybridOptimizer([vae], lr=2e-3, muon_lr=0.0, weight_decay=0.0)
    noise = torch.Generator().manual_seed(derive_seed(seed, "vae noise"))

    def step(index: int) -> dict[str, float]:
        images = batch(seed, index, batch_size)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(images).latent_dist
            latents = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=noise)
            decoded = vae.decode(latents).sample.float()
        reconstruction = F.l1_loss(decoded, images) + F.mse_loss(decoded, images)
        kl = posterior.kl().float().mean() / posterior.mean[0].numel()
        (reconstruction + 4e-3 * kl).backward()
        norm = optimizer.step(trapezoid(index, steps))
        return {"l1": float((decoded - images).abs().mean()), "kl": float(kl), "grad_norm": norm}

    run("train-vae", steps, log, step)
    vae.eval()
    with torch.no_grad():
        mean = vae.encode(batch(seed + 1, 0, 256)).latent_dist.mean
    vae.register_to_config(scaling_factor=round(1 / float(mean.std()), 4), shift_factor=round(float(mean.mean()), 4))
    with atomic_path(out) as temporary:
        # The library's wrapper of `to` has lost `self`.
        vae.to(torch.float16).save_pretrained(temporary, safe_serialization=True)  # type: ignore[arg-type]
