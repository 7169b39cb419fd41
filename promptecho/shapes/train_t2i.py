"""Train the shapes text-to-image model: `promptecho shapes train-t2i`. About an hour on one core, after the VAE.

Z-Image transformer and Qwen3 text encoder are trained together from scratch with flow matching. A share of the
captions is wrong in one fact, as captions from the web are: the model then renders crisply and errs in meaning,
so that several samples of one prompt differ in what they show. That is what group-relative advantages feed on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ZImagePipeline
from PIL import Image

from promptecho.progress import Progress
from promptecho.seeds import derive_seed
from promptecho.shapes.fast_attention import use_plain_attention
from promptecho.shapes.grammar import Claim, Group, corrupt, random_claim, scene_of, write
from promptecho.shapes.models import build_scheduler, build_text_encoder, build_transformer
from promptecho.shapes.render import render
from promptecho.shapes.tokenizer import build_tokenizer
from promptecho.shapes.train_vae import to_tensor
from promptecho.shapes.training import Averaged, HybridOptimizer, run, save_pipeline, take_over, trapezoid

WRONG_CAPTIONS = 0.4
NO_CAPTION = 0.1
SHIFT = 2.0  # as in the scheduler that samples
NOISIEST = (0.8, 1.0)  # timesteps


def draw_claim(claim: Claim, rng: np.random.Generator) -> Image.Image:
    """An image that shows what a claim says."""
    return render(scene_of(claim, rng), rng)


def caption_of(claim: Claim, rng: np.random.Generator) -> str:
    """A caption for an image that shows `claim`: true, wrong in one fact, or none at all."""
    if rng.random() < NO_CAPTION:
        return ""
    if rng.random() < WRONG_CAPTIONS:
        claim = corrupt(claim, rng)
    wording = int(rng.integers(4))
    if wording == 3 and rng.random() < 0.5:
        claim = Claim(tuple(Group(g.count, g.shape, None) for g in claim.groups), claim.relation)
    return write(claim, wording)


@dataclass(frozen=True)
class PaintingRecipe:
    """What a text-to-image model is trained on: its tokenizer, what is drawn, how, and a caption for it.

    `from_noise` is the share of examples whose timestep is drawn from `NOISIEST`. There an image says nothing of what
    it shows, so that all that is learned is what the prompt says; at smaller timesteps large objects and letters of
    high contrast can be told from the noisy image alone.
    """

    tokenizer: Callable[[], Any] = build_tokenizer
    subject: Callable[[np.random.Generator], Any] = random_claim
    draw: Callable[[Any, np.random.Generator], Image.Image] = draw_claim
    caption: Callable[[Any, np.random.Generator], str] = caption_of
    from_noise: float = 0.0


def encode_pool(vae: AutoencoderKL, size: int, seed: int, recipe: PaintingRecipe) -> tuple[torch.Tensor, list[Any]]:
    """Latents [size, 4, 16, 16] of rendered subjects, normalised, and what each shows."""
    subjects, latents = [], []
    bar = Progress("encode scenes", size, "images")
    for start in range(0, size, 128):
        rng = np.random.default_rng(derive_seed(seed, "t2i pool", start))
        chunk = [recipe.subject(rng) for _ in range(min(128, size - start))]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            mean = vae.encode(to_tensor([recipe.draw(one, rng) for one in chunk])).latent_dist.mean
        settings: Any = vae.config  # whose keys are attributes too
        latents.append((mean.float() - settings.shift_factor) * settings.scaling_factor)
        subjects += chunk
        bar.advance(len(chunk))
    return torch.cat(latents), subjects


def embed(text_encoder, tokenizer, prompts: list[str]) -> list[torch.Tensor]:
    """Per prompt the hidden states [tokens, dim] before the last layer, exactly as ZImagePipeline computes them."""
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=True
        )
        for prompt in prompts
    ]
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    states = text_encoder(**inputs, output_hidden_states=True, use_cache=False).hidden_states[-2]
    return [state[mask] for state, mask in zip(states, inputs.attention_mask.bool(), strict=True)]


def train_t2i(
    vae_folder: Path,
    out: Path,
    log: Path,
    *,
    recipe: PaintingRecipe = PaintingRecipe(),
    init: Path | None = None,
    steps: int = 1800,
    cooldown: float = 0.35,
    batch_size: int = 96,
    pool: int = 20480,
    seed: int = 0,
) -> None:
    """Train and save a folder that `ZImagePipeline.from_pretrained` reads (averaged weights).

    With `init`, start from that folder's transformer and text encoder instead of from scratch; they may know another
    vocabulary. The learning rate
    falls to zero over the last `cooldown` share of the steps.
    """
    torch.manual_seed(derive_seed(seed, "t2i"))
    vae = AutoencoderKL.from_pretrained(vae_folder, dtype=torch.float32).eval()
    tokenizer = recipe.tokenizer()
    text_encoder, transformer = build_text_encoder(tokenizer), build_transformer()
    if init is not None:
        start = ZImagePipeline.from_pretrained(init, dtype=torch.float32)
        take_over(text_encoder, tokenizer, start.text_encoder, start.tokenizer)
        take_over(transformer, tokenizer, start.transformer, start.tokenizer)
    text_encoder.set_attn_implementation("eager")
    use_plain_attention(transformer)
    latents, subjects = encode_pool(vae, pool, seed, recipe)
    modules = torch.nn.ModuleDict({"text_encoder": text_encoder, "transformer": transformer})
    average = Averaged(modules)
    optimizer = HybridOptimizer([text_encoder, transformer], lr=2e-3, muon_lr=2e-3, weight_decay=0.02)

    def step(index: int) -> dict[str, float]:
        rng = np.random.default_rng(derive_seed(seed, "t2i", index))
        generator = torch.Generator().manual_seed(derive_seed(seed, "t2i noise", index))
        rows = rng.integers(len(subjects), size=batch_size)
        x0 = latents[torch.from_numpy(rows)]
        noise = torch.randn(x0.shape, generator=generator)
        t = torch.sigmoid(torch.randn(batch_size, generator=generator))
        t = SHIFT * t / (1 + (SHIFT - 1) * t)
        if recipe.from_noise:
            low, high = NOISIEST
            noisiest = low + (high - low) * torch.rand(batch_size, generator=generator)
            t = torch.where(torch.rand(batch_size, generator=generator) < recipe.from_noise, noisiest, t)
        x_t = (1 - t[:, None, None, None]) * x0 + t[:, None, None, None] * noise
        with torch.autocast("cpu", torch.bfloat16):
            states = embed(text_encoder, tokenizer, [recipe.caption(subjects[row], rng) for row in rows])
            inputs = list(x_t.unsqueeze(2).unbind(0))
            output = torch.stack(transformer(inputs, 1 - t, states, return_dict=False)[0]).squeeze(2).float()
        loss = F.mse_loss(output, x0 - noise)  # Z-Image's transformer predicts the negated velocity
        loss.backward()
        norm = optimizer.step(trapezoid(index, steps, cooldown=cooldown))
        average.follow(index)
        return {"loss": float(loss.detach()), "grad_norm": norm}

    def save(_step: int) -> None:
        with average.in_place():
            save_t2i(vae, text_encoder, tokenizer, transformer, out)
        text_encoder.set_attn_implementation("eager")

    run("train-t2i", steps, log, step, checkpoint=save, checkpoint_every=200)
    average.put_in()
    save_t2i(vae, text_encoder, tokenizer, transformer, out)


def save_t2i(vae, text_encoder, tokenizer, transformer, out: Path) -> None:
    """Write the pipeline folder with half-precision weights."""
    text_encoder.set_attn_implementation("sdpa")
    save_pipeline(ZImagePipeline(build_scheduler(), vae, text_encoder, tokenizer, transformer), out)
