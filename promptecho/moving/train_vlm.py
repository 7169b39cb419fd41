"""Train the VLM of moving shapes: `promptecho shapes train-video-vlm`.

It begins as the shapes world's VLM `shapes-third`, which reads an image of 64 pixels, and learns to read three frames
of 32 as images of one turn: what is there it knows, where it goes it has to learn. Its patch embedding is that of an
image twice as large in which each of the frame's pixels is there four times.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import Qwen2Tokenizer, Qwen3VLForConditionalGeneration

from promptecho.moving.grammar import QUERY, write
from promptecho.moving.render import draw_frames
from promptecho.moving.vae import fit_vae
from promptecho.moving.world import FRAME_SIZE, FRAMES, MOTIONS, random_movers
from promptecho.progress import Progress
from promptecho.seeds import derive_seed
from promptecho.shapes.models import VLM_MERGE, VLM_SIZES, build_vlm
from promptecho.shapes.tokenizer import build_tokenizer, shapes_corpus
from promptecho.shapes.train_vae import to_tensor
from promptecho.shapes.train_vlm import patchify, preprocessor, save_vlm
from promptecho.shapes.training import HybridOptimizer, run, take_over, trapezoid

PATCH = 4  # pixels
PLACES = (FRAME_SIZE // PATCH // VLM_MERGE) ** 2  # image tokens of a frame
SEEN = tuple(range(0, FRAMES, 2))  # frames: first, middle and last
MOVERS = (0.35, 0.5, 0.15)  # shares of videos with one, two, and, which no prompt asks for, three
THROUGH_VAE = 0.7  # of the videos: those that are generated come out of it
MOTION_WEIGHT = 4.0  # of words for motions in the loss


def moving_tokenizer() -> Qwen2Tokenizer:
    """The shapes world's, with words for motions."""
    rng = np.random.default_rng(0)
    lines = [write(random_movers(rng), index % 2) for index in range(1200)]
    return build_tokenizer(corpus=shapes_corpus() + lines + [QUERY] * 40, size=600)


def start_from(model: Qwen3VLForConditionalGeneration, tokenizer: Any, folder: str | Path) -> None:
    """Take over the weights of a VLM for images of 64 pixels, or of one for these videos."""
    trained = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    take_over(model, tokenizer, trained, Qwen2Tokenizer.from_pretrained(folder))
    weight, own = (one.model.visual.patch_embed.proj.weight for one in (trained, model))  # [width, 3, 2, patch, patch]
    if weight.shape != own.shape:
        with torch.no_grad():
            own.copy_(weight.unflatten(-1, (PATCH, -1)).sum(-1).unflatten(-2, (PATCH, -1)).sum(-2))


def draw_pool(size: int, seed: int) -> tuple[torch.Tensor, list[str]]:
    """Frames [size, 3, 3, 32, 32] in [-1, 1], most of them as the VAE gives them back, and a true caption each."""
    vae, frames, captions, bar = fit_vae(seed), [], [], Progress("draw videos", size, "videos")
    for start in range(0, size, 64):
        rng = np.random.default_rng(derive_seed(seed, "moving vlm pool", start))
        chunk = [random_movers(rng, int(rng.choice([1, 2, 3], p=MOVERS))) for _ in range(min(64, size - start))]
        shown = torch.stack([to_tensor([draw_frames(movers, rng)[k] for k in SEEN]) for movers in chunk])
        through = torch.from_numpy(rng.random(len(chunk)) < THROUGH_VAE)
        noise = torch.from_numpy(rng.uniform(0, 0.12, (len(chunk), 1, 1, 1, 1))).float()
        with torch.no_grad():
            latents = vae.encode(shown.transpose(1, 2)).latent_dist.mean
            latents = latents + noise * torch.from_numpy(rng.normal(size=latents.shape)).float()
            shown[through] = vae.decode(latents[through]).sample.transpose(1, 2)
        frames.append(shown)
        captions += [write(movers, int(rng.integers(2))) for movers in chunk]
        bar.advance(len(chunk))
    return torch.cat(frames), captions


def train_vlm(
    out: Path,
    log: Path,
    *,
    init: str | Path,
    attention: str = "eager",
    steps: int = 1000,
    batch_size: int = 32,
    pool: int = 6144,
    seed: int = 0,
) -> None:
    """Train and save a folder that `AutoModelForImageTextToText` and `load_processor` read.

    `init` is the VLM to begin with; `attention` names the vision tower's implementation.
    """
    torch.manual_seed(derive_seed(seed, "moving vlm"))
    tokenizer = moving_tokenizer()
    model = build_vlm(tokenizer, VLM_MERGE, VLM_SIZES["third"], PATCH)
    start_from(model, tokenizer, init)
    model.set_attn_implementation({"vision_config": attention, "text_config": "eager"})
    frames, captions = draw_pool(pool, seed)
    prefix = prefix_ids(tokenizer)
    answers = [[*tokenizer(caption).input_ids, tokenizer.eos_token_id] for caption in captions]
    length = len(prefix) + max(map(len, answers))
    optimizer = HybridOptimizer([model], lr=1e-3, muon_lr=1e-3, weight_decay=0.02, float32=True)
    grid = torch.tensor([[1, FRAME_SIZE // PATCH, FRAME_SIZE // PATCH]]).repeat(batch_size * len(SEEN), 1)
    first = torch.tensor([[*prefix, *[tokenizer.pad_token_id] * (length - len(prefix))]])
    image_token = model.config.image_token_id
    positions, _ = model.model.get_rope_index(first, (first == image_token).int(), image_grid_thw=grid[: len(SEEN)])
    positions = positions.expand(3, batch_size, -1)
    weights = torch.ones(len(tokenizer))
    weights[[token for token in range(len(tokenizer)) if str(tokenizer.decode([token])).strip() in MOTIONS]] = (
        MOTION_WEIGHT
    )

    def step(index: int) -> dict[str, float]:
        rng = np.random.default_rng(derive_seed(seed, "moving vlm", index))
        rows = rng.integers(pool, size=batch_size)
        ids, labels = first.repeat(batch_size, 1), torch.full((batch_size, length), -100)
        for place, row in enumerate(rows):
            end = len(prefix) + len(answers[row])
            ids[place, len(prefix) : end] = labels[place, len(prefix) : end] = torch.tensor(answers[row])
        shown = frames[torch.from_numpy(rows)]
        shown = shown + torch.from_numpy(rng.normal(size=shown.shape)).float() * float(rng.uniform(0, 0.06))
        logits = model(
            input_ids=ids,
            pixel_values=patchify(shown.clamp(-1, 1).flatten(0, 1), VLM_MERGE, PATCH),
            image_grid_thw=grid,
            mm_token_type_ids=(ids == image_token).int(),
            position_ids=positions,
            use_cache=False,
            logits_to_keep=length - len(prefix) + 1,
        ).logits[:, :-1]
        labels = labels[:, len(prefix) :]
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), weights, ignore_index=-100)
        loss.backward()
        right, moving = logits.argmax(-1) == labels, weights[labels.clamp(min=0)] > 1
        return {
            "loss": float(loss.detach()),
            "accuracy": float(right[labels >= 0].float().mean()),
            "motions": float(right[moving & (labels >= 0)].float().mean()),
            "grad_norm": optimizer.step(trapezoid(index, steps, 50)),
        }

    settings = preprocessor(VLM_MERGE, PATCH, FRAME_SIZE)

    def save(_step: int) -> None:
        save_vlm(model, tokenizer, out, settings)

    run("train-vlm", steps, log, step, every=25, checkpoint=save, checkpoint_every=200)
    save(steps)


def prefix_ids(tokenizer: Any) -> list[int]:
    """Token ids of a conversation up to where its answer begins: the frames in their order, then the question."""
    content: list[dict[str, str]] = [{"type": "image"}] * len(SEEN) + [{"type": "text", "text": QUERY}]
    turn = [{"role": "user", "content": content}]
    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    return tokenizer(text.replace("<|image_pad|>", "<|image_pad|>" * PLACES)).input_ids
