"""Train the VLM of moving shapes: `promptecho shapes train-video-vlm`.

It begins as the shapes world's VLM `shapes-third`, which reads an image of 64 pixels, and learns to read three frames
of 32 as images of one turn: what is there it knows, where it goes it has to learn. Its patch embedding is that of an
image twice as large in which each of the frame's pixels is there four times.

Captions alone taught it whether something moves along a row or a column, and not which way. So its chat template
numbers the pictures, as Qwen3-VL's does where it is asked to, and of some videos it is asked where each thing comes
from and goes to, whose answer binds a place to the first picture and another to the last.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoConfig, Qwen2Tokenizer, Qwen3VLForConditionalGeneration

from promptecho.errors import ModelError
from promptecho.moving.grammar import QUERY, write
from promptecho.moving.render import render_frames
from promptecho.moving.vae import fit_vae
from promptecho.moving.world import FRAME_SIZE, FRAMES, MOTIONS, Mover, place, random_movers
from promptecho.progress import Progress
from promptecho.seeds import derive_seed
from promptecho.shapes import tokenizer as shapes_tokenizer
from promptecho.shapes.grammar import MIDDLE
from promptecho.shapes.models import VLM_MERGE, VLM_SIZES, build_vlm
from promptecho.shapes.train_vae import to_tensor
from promptecho.shapes.train_vlm import patchify, preprocessor, save_vlm
from promptecho.shapes.training import HybridOptimizer, run, take_over, trapezoid
from promptecho.shapes.world import Scene, Thing

PATCH = 4  # pixels
PLACES = (FRAME_SIZE // PATCH // VLM_MERGE) ** 2  # image tokens of a frame
SEEN = tuple(range(0, FRAMES, 2))  # frames: first, middle and last
MOVERS = (0.35, 0.5, 0.15)  # shares of videos with one, two, and, which no prompt asks for, three
THROUGH_VAE = 0.7  # of the videos: those that are generated come out of it
MOTION_WEIGHT = 4.0  # of words for motions in the loss
PATHS_QUERY = "What goes from where to where?"
PATHS_SHARE = 0.4  # of the videos with one mover or two
ONE_PICTURE = "{% if part.type == 'image' %}{{ '<|vision_start|>"
NUMBERED = (
    "{% if part.type == 'image' %}{% set seen.pictures = seen.pictures + 1 %}{{ 'Picture ' ~ seen.pictures ~ ': "
    "<|vision_start|>"
)
CHAT_TEMPLATE = "{% set seen = namespace(pictures=0) %}" + shapes_tokenizer.CHAT_TEMPLATE.replace(ONE_PICTURE, NUMBERED)


def moving_tokenizer() -> Qwen2Tokenizer:
    """The shapes world's, with words for motions."""
    rng, lines = np.random.default_rng(0), []
    for index in range(1200):
        movers = random_movers(rng)
        lines += [write(movers, index % 2), write_paths(movers, place(movers, rng))]
    corpus = shapes_tokenizer.shapes_corpus() + lines + [QUERY, PATHS_QUERY, "Picture 1: "] * 40
    tokenizer = shapes_tokenizer.build_tokenizer(corpus=corpus, size=640)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def write_paths(movers: tuple[Mover, ...], scenes: list[Scene]) -> str:
    """Where each mover is in the first frame and in the last: "A red circle from above left to above."."""

    def where(thing: Thing) -> str:
        words = ["above"] if thing.y < MIDDLE[0] else ["below"] if thing.y > MIDDLE[1] else []
        words += ["left"] if thing.x < MIDDLE[0] else ["right"] if thing.x > MIDDLE[1] else []
        return " ".join(words) or "the middle"

    parts = [
        f"a {mover.color} {mover.shape} from {where(first)} to {where(last)}"
        for mover, first, last in zip(movers, scenes[0].things, scenes[-1].things, strict=True)
    ]
    text = " and ".join(parts) + "."
    return text[0].upper() + text[1:]


def start_from(model: Qwen3VLForConditionalGeneration, tokenizer: Any, folder: str | Path) -> None:
    """Take over the weights of a VLM for images of 64 pixels, or of one for these videos.

    Raises:
        ModelError: it is no VLM of this class and width.
    """
    found, own_config = AutoConfig.from_pretrained(folder), model.config
    widths = [getattr(getattr(one, "text_config", None), "hidden_size", None) for one in (found, own_config)]
    if found.model_type != own_config.model_type or widths[0] != widths[1]:
        raise ModelError(
            f"{folder}: no {own_config.model_type} of width {widths[1]} to begin with; take shapes-third, or a "
            "folder that this command wrote"
        )
    trained = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    take_over(model, tokenizer, trained, Qwen2Tokenizer.from_pretrained(folder))
    weight, own = (one.model.visual.patch_embed.proj.weight for one in (trained, model))  # [width, 3, 2, patch, patch]
    if weight.shape != own.shape:
        with torch.no_grad():
            own.copy_(weight.unflatten(-1, (PATCH, -1)).sum(-1).unflatten(-2, (PATCH, -1)).sum(-2))


def draw_pool(size: int, seed: int) -> tuple[torch.Tensor, list[tuple[str, str]]]:
    """Frames [size, 3, 3, 32, 32] in [-1, 1], most of them as the VAE gives them back, and for each video what is asked
    and the true answer."""
    vae, frames, asked, bar = fit_vae(seed), [], [], Progress("draw videos", size, "videos")
    for start in range(0, size, 64):
        rng = np.random.default_rng(derive_seed(seed, "moving vlm pool", start))
        chunk = [random_movers(rng, int(rng.choice([1, 2, 3], p=MOVERS))) for _ in range(min(64, size - start))]
        paths = [place(movers, rng) for movers in chunk]
        shown = torch.stack([to_tensor(render_frames([scenes[k] for k in SEEN], rng)) for scenes in paths])
        through = torch.from_numpy(rng.random(len(chunk)) < THROUGH_VAE)
        noise = torch.from_numpy(rng.uniform(0, 0.12, (len(chunk), 1, 1, 1, 1))).float()
        with torch.no_grad():
            latents = vae.encode(shown.transpose(1, 2)).latent_dist.mean
            latents = latents + noise * torch.from_numpy(rng.normal(size=latents.shape)).float()
            shown[through] = vae.decode(latents[through]).sample.transpose(1, 2)
        frames.append(shown)
        for movers, scenes in zip(chunk, paths, strict=True):
            tells = len(movers) < 3 and rng.random() < PATHS_SHARE
            caption = write(movers, int(rng.integers(2)))
            asked.append((PATHS_QUERY, write_paths(movers, scenes)) if tells else (QUERY, caption))
        bar.advance(len(chunk))
    return torch.cat(frames), asked


def train_vlm(
    out: Path,
    log: Path,
    *,
    init: str | Path,
    attention: str = "eager",
    steps: int = 600,
    batch_size: int = 32,
    pool: int = 3072,
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
    frames, asked = draw_pool(pool, seed)
    prefixes = {query: prefix_ids(tokenizer, query) for query in (QUERY, PATHS_QUERY)}
    answers = [[*tokenizer(answer).input_ids, tokenizer.eos_token_id] for _, answer in asked]
    length = max(len(prefixes[query]) + len(ids) for (query, _), ids in zip(asked, answers, strict=True))
    shortest = min(map(len, prefixes.values()))
    optimizer = HybridOptimizer([model], lr=1e-3, muon_lr=1e-3, weight_decay=0.02, float32=True)
    grid = torch.tensor([[1, FRAME_SIZE // PATCH, FRAME_SIZE // PATCH]]).repeat(batch_size * len(SEEN), 1)
    opening = prefixes[QUERY]
    first = torch.tensor([[*opening, *[tokenizer.pad_token_id] * (length - len(opening))]])
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
        ids = torch.full((batch_size, length), tokenizer.pad_token_id)
        labels = torch.full_like(ids, -100)
        for n, row in enumerate(rows):
            prefix = prefixes[asked[row][0]]
            end = len(prefix) + len(answers[row])
            ids[n, :end] = torch.tensor([*prefix, *answers[row]])
            labels[n, len(prefix) : end] = torch.tensor(answers[row])
        shown = frames[torch.from_numpy(rows)]
        shown = shown + torch.from_numpy(rng.normal(size=shown.shape)).float() * float(rng.uniform(0, 0.06))
        logits = model(
            input_ids=ids,
            pixel_values=patchify(shown.clamp(-1, 1).flatten(0, 1), VLM_MERGE, PATCH),
            image_grid_thw=grid,
            mm_token_type_ids=(ids == image_token).int(),
            position_ids=positions,
            use_cache=False,
            logits_to_keep=length - shortest + 1,
        ).logits[:, :-1]
        labels = labels[:, shortest:]
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


def prefix_ids(tokenizer: Any, query: str) -> list[int]:
    """Token ids of a conversation up to where its answer begins: the frames in their order, then the question."""
    content: list[dict[str, str]] = [{"type": "image"}] * len(SEEN) + [{"type": "text", "text": query}]
    turn = [{"role": "user", "content": content}]
    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    return tokenizer(text.replace("<|image_pad|>", "<|image_pad|>" * PLACES)).input_ids
