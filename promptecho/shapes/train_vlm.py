"""Train the shapes VLM: `promptecho shapes train-vlm`. About forty minutes on one core.

Trained on a wider world than the prompts talk about (none to six objects in any combination, half of the images
soft, warped, noisy or tinted), each with its true caption: a VLM that only knows what prompts ask for takes four
triangles for a perfect "three".

A third of the pictures come with a second question, where each object is. Captions alone name a direction so rarely
that in 1,500 steps a VLM learns whether two objects lie beside each other or one above the other, and not which of
them is where; the answers to the second question teach it that.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import Qwen2Tokenizer, Qwen3VLForConditionalGeneration

from promptecho.files import atomic_path
from promptecho.seeds import derive_seed
from promptecho.shapes.grammar import Claim, Group, describe, random_claim, scene_of, write, write_places
from promptecho.shapes.models import VLM_MERGE, VLM_PATCH, VLM_SIZES, VlmSize, build_vlm, spread_positions
from promptecho.shapes.questions import PLACES_QUERY
from promptecho.shapes.render import damage, render
from promptecho.shapes.tokenizer import QUERY, build_tokenizer
from promptecho.shapes.train_vae import to_tensor
from promptecho.shapes.training import HybridOptimizer, run, take_over, trapezoid
from promptecho.shapes.world import IMAGE_SIZE, RELATIONS, wide_scene

PLACES_SHARE = 0.35  # of the scenes with one to four objects


def preprocessor(merge: int, patch: int = VLM_PATCH, side: int = IMAGE_SIZE) -> dict:
    """The image settings that transformers' loaders read, for images of `side` pixels."""
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen3VLProcessor",
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "patch_size": patch,
        "merge_size": merge,
        "temporal_patch_size": 2,
        "size": {"shortest_edge": side**2, "longest_edge": side**2},
    }


def patchify(images: torch.Tensor, merge: int = VLM_MERGE, patch: int = VLM_PATCH) -> torch.Tensor:
    """[N, 3, H, W] in [-1, 1] to Qwen2VLImageProcessor's patches [N * patches, 3 * 2 * patch * patch], merge groups
    together."""
    n, c, h, w = images.shape
    p, m = patch, merge
    x = images.view(n, c, h // p // m, m, p, w // p // m, m, p).permute(0, 2, 5, 3, 6, 1, 4, 7)
    x = x.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, 2, -1, -1)  # a still image fills both temporal slots
    return x.reshape(n * (h // p) * (w // p), c * 2 * p * p)


@dataclass(frozen=True)
class Example:
    """An image, what is asked about it, and the true answer."""

    image: Image.Image
    query: str
    answer: str


def sample(rng: np.random.Generator) -> Example:
    """60 % wide world, 40 % prompt world; of the captions a tenth in the short wording, half of those without
    colours."""
    scene = wide_scene(rng) if rng.random() < 0.6 else scene_of(random_claim(rng), rng)
    if 1 <= len(scene.things) <= 4 and rng.random() < PLACES_SHARE:
        query, answer = PLACES_QUERY, write_places(scene, rng)
    else:
        claim = describe(scene, rng)
        wording = int(rng.integers(3))
        if claim.groups and rng.random() < 0.1:
            wording = 3
            if rng.random() < 0.5:
                claim = Claim(tuple(Group(g.count, g.shape, None) for g in claim.groups), claim.relation)
        query, answer = QUERY, write(claim, wording)
    image = render(scene, rng)
    return Example(damage(image, rng) if rng.random() < 0.5 else image, query, answer)


@dataclass(frozen=True)
class ReadingRecipe:
    """What a VLM is trained on: its tokenizer, how an example is drawn, the queries that occur often, of which
    one is the shortest of all, patches in one image token along each side, and the longest conversation in tokens."""

    tokenizer: Callable[[], Any] = build_tokenizer
    sample: Callable[[np.random.Generator], Example] = sample
    queries: tuple[str, ...] = (QUERY, PLACES_QUERY)
    merge: int = VLM_MERGE
    length: int = 64
    directions: float = 1.0  # what a token of left, right, above or below counts in the loss, where any other counts 1


class Batcher:
    """Token ids and labels of the training conversations, right-padded to the longest of them."""

    def __init__(self, tokenizer, recipe: ReadingRecipe):
        self.tokenizer, self.length = tokenizer, recipe.length
        self.image_tokens = "<|image_pad|>" * (IMAGE_SIZE // VLM_PATCH // recipe.merge) ** 2
        self.prefixes = {query: self.prefix(query) for query in recipe.queries}
        self.shortest = min(map(len, self.prefixes.values()))
        self.image_token = tokenizer.convert_tokens_to_ids("<|image_pad|>")

    def prefix(self, query: str) -> list[int]:
        """Token ids of a conversation up to where its answer begins."""
        turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": query}]}]
        text = self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        return self.tokenizer(text.replace("<|image_pad|>", self.image_tokens)).input_ids

    def __call__(self, pairs: list[tuple[str, str]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """input_ids, labels, mm_token_type_ids of (query, answer) pairs, all [N, tokens]; the end token is a label."""
        ids = torch.full((len(pairs), self.length), self.tokenizer.pad_token_id)
        labels = torch.full_like(ids, -100)
        longest = 0
        for row, (query, answer) in enumerate(pairs):
            prefix = self.prefixes.get(query) or self.prefix(query)
            tokens = [*self.tokenizer(answer).input_ids, self.tokenizer.eos_token_id]
            end = len(prefix) + len(tokens)
            ids[row, :end] = torch.tensor([*prefix, *tokens])
            labels[row, len(prefix) : end] = torch.tensor(tokens)
            longest = max(longest, end)
        ids, labels = ids[:, :longest], labels[:, :longest]
        return ids, labels, (ids == self.image_token).int()


def token_weights(tokenizer, recipe: ReadingRecipe) -> torch.Tensor | None:
    """What each token of the vocabulary counts in the loss; None where all count the same. [vocabulary]

    The loss is the weighted mean: a step does not become larger with it, the words' share in it does.
    """
    if recipe.directions == 1.0:
        return None
    weights = torch.ones(len(tokenizer))
    weights[[token for token in range(len(tokenizer)) if tokenizer.decode([token]).strip() in RELATIONS]] = (
        recipe.directions
    )
    return weights


def train_vlm(
    out: Path,
    log: Path,
    *,
    recipe: ReadingRecipe = ReadingRecipe(),
    size: VlmSize = VLM_SIZES["full"],
    init: Path | None = None,
    steps: int = 1500,
    batch_size: int = 96,
    seed: int = 0,
) -> None:
    """Train and save a folder that `AutoModelForImageTextToText` and `load_processor` read.

    With `init`, what fits is taken over from the VLM of that folder; without, training starts from scratch.
    """
    torch.manual_seed(derive_seed(seed, "vlm"))
    tokenizer = recipe.tokenizer()
    model = build_vlm(tokenizer, recipe.merge, size)
    spread_positions(model)
    if init is not None:
        trained = Qwen3VLForConditionalGeneration.from_pretrained(init, dtype=torch.float32)
        take_over(model, tokenizer, trained, Qwen2Tokenizer.from_pretrained(init))
    model.set_attn_implementation("eager")  # at 52 tokens faster on a CPU than the fused kernel, same values
    batcher = Batcher(tokenizer, recipe)
    optimizer = HybridOptimizer([model], lr=2e-3, muon_lr=2e-3, weight_decay=0.05)
    side = IMAGE_SIZE // VLM_PATCH
    grid = torch.tensor([[1, side, side]]).repeat(batch_size, 1)
    ids = torch.full((1, recipe.length), tokenizer.pad_token_id)
    first = batcher.prefixes[recipe.queries[0]]
    ids[0, : len(first)] = torch.tensor(first)
    types = (ids == batcher.image_token).int()
    positions, _ = model.model.get_rope_index(ids, types, image_grid_thw=grid[:1])
    positions = positions.expand(3, batch_size, -1)
    weights = token_weights(tokenizer, recipe)

    def step(index: int) -> dict[str, float]:
        rng = np.random.default_rng(derive_seed(seed, "vlm", index))
        examples = [recipe.sample(rng) for _ in range(batch_size)]
        ids, labels, types = batcher([(example.query, example.answer) for example in examples])
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(
                input_ids=ids,
                pixel_values=patchify(to_tensor([example.image for example in examples]), recipe.merge),
                image_grid_thw=grid,
                mm_token_type_ids=types,
                position_ids=positions[..., : ids.shape[1]],
                use_cache=False,
                logits_to_keep=ids.shape[1] - batcher.shortest + 1,
            ).logits[:, :-1]
        labels = labels[:, batcher.shortest :]
        loss = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), weights, ignore_index=-100)
        loss.backward()
        with torch.no_grad():
            mask = labels != -100
            accuracy = float((logits.argmax(-1) == labels)[mask].float().mean())
        return {
            "loss": float(loss.detach()),
            "accuracy": accuracy,
            "grad_norm": optimizer.step(trapezoid(index, steps)),
        }

    def save(_step: int) -> None:
        save_vlm(model, tokenizer, out, preprocessor(recipe.merge))

    run("train-vlm", steps, log, step, checkpoint=save, checkpoint_every=200)
    save_vlm(model, tokenizer, out, preprocessor(recipe.merge))


def save_vlm(model: Qwen3VLForConditionalGeneration, tokenizer, out: Path, settings: dict) -> None:
    """Write half-precision weights, tokenizer, chat template and image `settings`; the live model stays float32."""
    state = {name: value.to(torch.float16) for name, value in model.state_dict().items()}
    with atomic_path(out) as temporary:
        model.save_pretrained(temporary, state_dict=state, safe_serialization=True)
        tokenizer.save_pretrained(temporary)
        (temporary / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n")
