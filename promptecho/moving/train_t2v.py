"""Train the text-to-video model of moving shapes: `promptecho shapes train-t2v`.

As the shapes world's text-to-image model: transformer and text encoder together, from scratch, with flow matching, and
with a share of captions that are wrong in one fact, so that several videos of one prompt differ in what they show.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import WanPipeline

from promptecho.moving.grammar import corrupt, write
from promptecho.moving.models import SHIFT, build_scheduler, build_text_encoder, build_tokenizer, build_transformer
from promptecho.moving.render import draw_frames
from promptecho.moving.vae import fit_vae
from promptecho.moving.world import Mover, random_movers
from promptecho.seeds import derive_seed
from promptecho.shapes.train_vae import to_tensor
from promptecho.shapes.training import Averaged, HybridOptimizer, run, save_pipeline, trapezoid

WRONG_CAPTIONS = 0.35
NO_CAPTION = 0.05


def caption_of(movers: tuple[Mover, ...], rng: np.random.Generator) -> str:
    """A caption of a video of `movers`: true, wrong in one fact, or none at all."""
    if rng.random() < NO_CAPTION:
        return ""
    shown = corrupt(movers, rng) if rng.random() < WRONG_CAPTIONS else movers
    return write(shown, int(rng.integers(2)))


def encode_pool(vae: Any, size: int, seed: int) -> tuple[torch.Tensor, list[tuple[Mover, ...]]]:
    """Latents [size, 16, 5, 8, 8] of videos, normalised, and what moves in each."""
    rng = np.random.default_rng(derive_seed(seed, "moving t2v pool"))
    shown, latents, std = [], [], torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    for start in range(0, size, 64):
        chunk = [random_movers(rng, int(rng.integers(1, 3))) for _ in range(min(64, size - start))]
        pixels = torch.stack([to_tensor(draw_frames(movers, rng)) for movers in chunk]).transpose(1, 2)
        with torch.no_grad():
            latents.append(vae.encode(pixels).latent_dist.mean / std)
        shown += chunk
    return torch.cat(latents), shown


def embed(text_encoder: Any, tokenizer: Any, prompts: list[str]) -> torch.Tensor:
    """States [N, 16, width] as WanPipeline computes them: behind a prompt's last token there are zeros."""
    inputs = tokenizer(prompts, padding="max_length", return_tensors="pt", max_length=tokenizer.model_max_length)
    states = text_encoder(inputs.input_ids, inputs.attention_mask).last_hidden_state
    return states * inputs.attention_mask[..., None]


def train_t2v(
    out: Path,
    log: Path,
    *,
    init: Path | None = None,
    steps: int = 3000,
    batch_size: int = 32,
    pool: int = 8192,
    seed: int = 0,
    lr: float = 2e-3,
) -> None:
    """Train and save a folder that `WanPipeline.from_pretrained` reads (averaged weights).

    With `init`, a folder that this function wrote, its transformer and text encoder are trained on, and its VAE stays.
    """
    torch.manual_seed(derive_seed(seed, "moving t2v"))
    tokenizer = build_tokenizer()
    text_encoder, transformer = build_text_encoder(tokenizer), build_transformer()
    if init is None:
        vae: Any = fit_vae(seed)
    else:
        start = WanPipeline.from_pretrained(init, dtype=torch.float32)
        vae = start.vae.eval()
        text_encoder.load_state_dict(start.text_encoder.state_dict())
        transformer.load_state_dict(start.transformer.state_dict())
    latents, shown = encode_pool(vae, pool, seed)
    modules = torch.nn.ModuleDict({"text_encoder": text_encoder, "transformer": transformer})
    average = Averaged(modules)
    optimizer = HybridOptimizer([text_encoder, transformer], lr=lr, muon_lr=lr, weight_decay=0.02, float32=True)

    def step(index: int) -> dict[str, float]:
        rng = np.random.default_rng(derive_seed(seed, "moving t2v", index))
        generator = torch.Generator().manual_seed(derive_seed(seed, "moving t2v noise", index))
        rows = rng.integers(pool, size=batch_size)
        x0 = latents[torch.from_numpy(rows)]
        noise = torch.randn(x0.shape, generator=generator)
        t = torch.sigmoid(torch.randn(batch_size, generator=generator))
        t = SHIFT * t / (1 + (SHIFT - 1) * t)
        share = t.view(-1, 1, 1, 1, 1)
        states = embed(text_encoder, tokenizer, [caption_of(shown[row], rng) for row in rows])
        velocity = transformer((1 - share) * x0 + share * noise, t * 1000, states, return_dict=False)[0]
        loss = F.mse_loss(velocity, noise - x0)
        loss.backward()
        norm = optimizer.step(trapezoid(index, steps))
        average.follow(index)
        return {"loss": float(loss.detach()), "grad_norm": norm}

    def save(_step: int) -> None:
        with average.in_place():
            save_t2v(vae, text_encoder, tokenizer, transformer, out)

    run("train-t2v", steps, log, step, checkpoint=save, checkpoint_every=200)
    average.put_in()
    save_t2v(vae, text_encoder, tokenizer, transformer, out)


def save_t2v(vae: Any, text_encoder: Any, tokenizer: Any, transformer: Any, out: Path) -> None:
    """Write the pipeline folder with half-precision weights."""
    save_pipeline(WanPipeline(tokenizer, text_encoder, vae, build_scheduler(), transformer), out)
