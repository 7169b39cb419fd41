"""Train the shapes CLIP: `promptecho shapes train-clip`. Half an hour on one core.

Contrastive, with the symmetric cross entropy of CLIP (Radford et al. 2021, arXiv 2103.00020, figure 3). What differs is
what it must tell apart. Captions of other pictures drawn at random differ from the true one in several facts, and the
nouns alone decide; so every picture has beside it one that differs in a single fact, with its own caption, and its
caption occurs with a single fact wrong. The facts are those of `grammar.corrupt`; where a caption says which of two
objects is where, one of its wrong ones says the opposite, because that is learned last.

It computes in float32: bfloat16 is twelve times slower on processors without AVX-512.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer

from promptecho.files import atomic_path
from promptecho.seeds import derive_seed
from promptecho.shapes.clip_model import build_clip, build_clip_tokenizer
from promptecho.shapes.grammar import Claim, Group, corrupt, describe, random_claim, scene_of, write
from promptecho.shapes.render import damage, render
from promptecho.shapes.train_vae import to_tensor
from promptecho.shapes.training import HybridOptimizer, run, trapezoid
from promptecho.shapes.world import IMAGE_SIZE, OPPOSITE, Scene, relation, wide_scene

PREFIX = "A photo depicts "  # what clipscore writes before each prompt, by default
WRONG = 2  # captions with one fact wrong, for each picture
MOST_SCALE = math.log(100)  # of the logits, as CLIP's authors have it

PREPROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": IMAGE_SIZE},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
"""The image settings that transformers' loaders read."""


@dataclass(frozen=True)
class ContrastiveExample:
    """A picture of a scene, its true caption, and captions with one fact wrong."""

    image: Image.Image
    scene: Scene
    claim: Claim
    wrong: tuple[Claim, ...]
    texts: tuple[str, ...]  # of the true claim, then of the wrong ones


def fact_key(claim: Claim) -> tuple:
    """The same for claims that say the same, whichever group they name first."""
    named = [(group.shape, group.color or "", group.count) for group in claim.groups]
    where = claim.relation
    if where is not None and named[0] > named[1]:
        where = OPPOSITE[where]
    return tuple(sorted(named)), where


def true_keys(scene: Scene) -> set[tuple]:
    """The keys of all claims that tell a scene completely: with and without colours, with and without the relation."""
    found = set()
    for colored in (True, False):
        kinds = Counter((thing.shape, thing.color if colored else None) for thing in scene.things)
        groups = tuple(Group(count, shape, color) for (shape, color), count in kinds.items())
        found.add(fact_key(Claim(groups)))
        if len(scene.things) == len(groups) == 2:
            found.add(fact_key(Claim(groups, relation(*scene.things))))
    return found


def sample(rng: np.random.Generator) -> list[ContrastiveExample]:
    """Two examples that differ in one fact: half of them of the wide world, half of the prompt world.

    One caption in ten names no colours, half begin with `PREFIX`; half of the images are damaged.
    """
    if rng.random() < 0.5:
        scene = wide_scene(rng)
        while not scene.things:
            scene = wide_scene(rng)
        claim = describe(scene, rng)
    else:
        claim = random_claim(rng)
        scene = scene_of(claim, rng)
    if len({group.shape for group in claim.groups}) == len(claim.groups) and rng.random() < 0.1:
        claim = Claim(tuple(Group(group.count, group.shape, None) for group in claim.groups), claim.relation)
    other = corrupt(claim, rng)
    wording, prefix = int(rng.integers(4)), PREFIX if rng.random() < 0.5 else ""
    examples = []
    for one, its_scene in ((claim, scene), (other, scene_of(other, rng))):
        wrong = [corrupt(one, rng) for _ in range(WRONG)]
        if one.relation is not None:
            wrong[0] = Claim(one.groups, OPPOSITE[one.relation])
        image = render(its_scene, rng)
        image = damage(image, rng) if rng.random() < 0.5 else image
        texts = tuple(prefix + write(told, wording) for told in (one, *wrong))
        examples.append(ContrastiveExample(image, its_scene, one, tuple(wrong), texts))
    return examples


def also_true(examples: list[ContrastiveExample]) -> torch.Tensor:
    """Which texts are true of which pictures beside the pictures' own, so that they are no negatives.

    [N, N * (1 + WRONG)]: rows are pictures; columns the true captions, and then the wrong ones of each.
    """
    claims = [example.claim for example in examples] + [wrong for example in examples for wrong in example.wrong]
    keys = [fact_key(claim) for claim in claims]
    found = torch.tensor([[key in true for key in keys] for true in (true_keys(e.scene) for e in examples)])
    own = torch.arange(len(examples))
    found[own, own] = False
    return found


def train_clip(
    out: Path, log: Path, *, init: Path | None = None, steps: int = 1500, batch_size: int = 64, seed: int = 0
) -> None:
    """Train and save a folder that `CLIPModel`, `AutoTokenizer` and `AutoImageProcessor` read.

    `batch_size` counts pictures, two of each draw. With `init`, training goes on from the CLIP of that folder; without,
    it starts from scratch.
    """
    torch.manual_seed(derive_seed(seed, "clip"))
    tokenizer = build_clip_tokenizer()
    model = build_clip(tokenizer)
    if init is not None:
        model.load_state_dict(CLIPModel.from_pretrained(init, dtype=torch.float32).state_dict())
    optimizer = HybridOptimizer([model], lr=2e-3, muon_lr=2e-3, weight_decay=0.05)

    def step(index: int) -> dict[str, float]:
        rng = np.random.default_rng(derive_seed(seed, "clip", index))
        examples: list[ContrastiveExample] = []
        while len(examples) < batch_size:
            examples += sample(rng)
        examples = examples[:batch_size]
        texts = [example.texts[0] for example in examples]
        texts += [text for example in examples for text in example.texts[1:]]
        ids = tokenizer(texts, padding=True, return_tensors="pt")["input_ids"]
        shown = F.normalize(model.get_image_features(to_tensor([one.image for one in examples])).pooler_output, dim=-1)
        told = F.normalize(model.get_text_features(ids).pooler_output, dim=-1)  # causal: padding is never read
        logits = model.logit_scale.exp() * shown @ told.T
        logits = logits.masked_fill(also_true(examples), -math.inf)
        own = torch.arange(len(examples))
        loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits[:, : len(examples)].T, own)) / 2
        loss.backward()
        norm = optimizer.step(trapezoid(index, steps, warmup=50))
        with torch.no_grad():
            model.logit_scale.clamp_(max=MOST_SCALE)
            wrong = logits[:, len(examples) :].view(len(examples), len(examples), WRONG)[own, own]
            return {
                "loss": float(loss),
                "accuracy": float((logits.argmax(1) == own).float().mean()),
                "prefers_true": float((logits[own, own, None] > wrong).float().mean()),
                "scale": float(model.logit_scale.exp()),
                "grad_norm": norm,
            }

    def save(_step: int) -> None:
        save_clip(model, tokenizer, out)

    run("train-clip", steps, log, step, checkpoint=save, checkpoint_every=100)
    save(steps)


def save_clip(model: CLIPModel, tokenizer: CLIPTokenizer, out: Path) -> None:
    """Write half-precision weights, tokenizer and image settings; the live model stays float32."""
    state = {name: value.to(torch.float16) for name, value in model.state_dict().items()}
    with atomic_path(out) as temporary:
        model.save_pretrained(temporary, state_dict=state, safe_serialization=True)
        tokenizer.save_pretrained(temporary)
        (temporary / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2) + "\n")
