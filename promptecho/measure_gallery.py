"""How good the gallery's models are, on what none of them was trained on: `promptecho shapes measure --world gallery`.

Posters have held-out words. Each part stands alone, so that models can be measured while others are still in training.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from promptecho.benchmarks.tiif.gallery import KINDS
from promptecho.benchmarks.tiif.gallery_oracle import GALLERY_ORACLE
from promptecho.benchmarks.tiif.prompt_rows import Asked
from promptecho.config.families import DEFAULT, family_in
from promptecho.gallery.captions import (
    FACTS,
    corrupt_dense,
    dense_scene_of,
    random_dense_claim,
    write_dense,
    wrong_kinds,
)
from promptecho.gallery.drawing import draw_poster, draw_scene
from promptecho.gallery.look_oracle import detect_things, facts_shown, judge_dense
from promptecho.gallery.pictures import draw_subject
from promptecho.gallery.posters import READ_QUERY, Poster, misspell, random_poster, write_label, write_prompt
from promptecho.gallery.shown_text import ShownText, shown_texts
from promptecho.gallery.text_oracle import read_poster
from promptecho.measure_shapes import draw_grid, generate, share, within_prompt_auc
from promptecho.rewards.echo.reward import DEFAULT_QUERY, EchoReward
from promptecho.seeds import derive_seed
from promptecho.shapes.train_vae import to_tensor
from promptecho.shipped import model_path
from promptecho.t2i.registry import load_family
from promptecho.t2i.trained import load_trained
from promptecho.vlm import Vlm, load_vlm

LETTER = "letter"


@dataclass
class SceneTally:
    """Counts over scenes: right images, and facts shown by kind."""

    images: int = 0
    right: int = 0
    facts: Counter = field(default_factory=Counter)
    shown: Counter = field(default_factory=Counter)

    def add(self, claim: Any, image: Image.Image) -> bool:
        found = detect_things(image)
        right = judge_dense(claim, found)
        self.images += 1
        self.right += right
        for kind, there in facts_shown(claim, found):
            self.facts[kind] += 1
            self.shown[kind] += there
        return right

    def told(self, name: str) -> dict[str, dict]:
        by_kind = {f"{name}_{kind}": share(self.shown[kind], self.facts[kind]) for kind in FACTS if self.facts[kind]}
        return {name: share(self.right, self.images), **by_kind}


@dataclass
class PosterTally:
    """Counts over posters: images with all text right, words right by role, and edits per character."""

    images: int = 0
    right: int = 0
    grounds: int = 0
    by_role: dict[str, list[ShownText]] = field(default_factory=lambda: defaultdict(list))
    added: int = 0

    def add(self, asked: Poster, image: Image.Image) -> bool:
        shown = read_poster(image).poster
        right = shown.texts == asked.texts
        self.images += 1
        self.right += right
        self.grounds += shown.ground == asked.ground
        for one in shown_texts(asked.texts, shown.texts):
            if one.asked:
                self.by_role[one.role].append(one)
            else:
                self.added += len(one.shown)
        return right

    def told(self, name: str) -> dict[str, Any]:
        words = [one for some in self.by_role.values() for one in some]
        facts: dict[str, Any] = {
            name: share(self.right, self.images),
            f"{name}_ground": share(self.grounds, self.images),
        }
        for role, some in self.by_role.items():
            facts[f"{name}_{role}"] = share(sum(one.edits == 0 for one in some), len(some))
        characters = sum(len(one.asked) for one in words)
        edits = sum(one.edits for one in words) + self.added
        facts[f"{name}_character_error_rate"] = {"value": round(edits / characters, 4), "characters": characters}
        return facts


@dataclass
class QuestionTally:
    """Counts over questions of TIIF-Bench: those whose answer is the expected one."""

    questions: int = 0
    right: int = 0

    def add(self, asked: Sequence[Asked], image: Image.Image) -> None:
        answers = GALLERY_ORACLE.answers(image, [question for question, _ in asked])
        self.questions += len(asked)
        self.right += sum(answer == expected for answer, (_, expected) in zip(answers, asked, strict=True))


def after_vae(folder: Path, n: int, seed: int) -> dict[str, Any]:
    """What the oracles read from `n` posters, three texts each and spelled freely, `n` scenes, and `n` images of
    TIIF-Bench's attributes in turn, after a round trip through the VAE (the mean of its posterior)."""
    from diffusers import AutoencoderKL

    vae: Any = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32).eval()
    posters, scenes, questions = PosterTally(), SceneTally(), QuestionTally()
    attributes = list(KINDS.values())
    for start in range(0, n, 16):
        made: list[tuple[Callable[[Image.Image], Any], Image.Image]] = []
        for index in range(start, min(start + 16, n)):
            rng = np.random.default_rng(derive_seed(seed, "measure vae", index))
            poster, claim = random_poster(rng, spelled_freely=True, count=3), random_dense_claim(rng)
            made.append((partial(posters.add, poster), draw_poster(poster, rng)))
            made.append((partial(scenes.add, claim), draw_scene(dense_scene_of(claim, rng), rng)))
            draw, ask = attributes[index % len(attributes)]
            rng = np.random.default_rng(derive_seed(seed, "measure vae tiif", index))
            subject = draw(rng)
            made.append((partial(questions.add, ask(subject)), draw_subject(subject, rng)))
        with torch.no_grad():
            pixels = vae.decode(vae.encode(to_tensor([image for _, image in made])).latent_dist.mean).sample
        for (add, _), one in zip(made, _pictures(pixels), strict=True):
            add(one)
    answered = {"vae_tiif_questions": share(questions.right, questions.questions)}
    return {**posters.told("vae_posters"), **scenes.told("vae_scenes"), **answered}


def _pictures(pixels: torch.Tensor) -> list[Image.Image]:
    arrays = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(array) for array in arrays]


def vlm_on_drawings(vlm: Vlm, n: int, seed: int, held_out: bool = True) -> dict[str, dict]:
    """For each kind of wrong fact, on `n` drawn pictures: how often the true text has the higher reward.

    Letters are asked for twice: in a poster's label, the answer to `READ_QUERY`, and in its prompt.
    """
    facts = {}
    for kind in FACTS:
        made = [_wrong_scene(kind, derive_seed(seed, "measure vlm", kind, index)) for index in range(n)]
        facts[f"vlm_true_beats_wrong_{kind}"] = _wins(EchoReward(vlm, batch_size=32), made)
    for name, query, write in (
        (LETTER, READ_QUERY, write_label), (f"{LETTER}_in_prompt", DEFAULT_QUERY, partial(write_prompt, wording=0)),
    ):  # fmt: skip
        made = []
        for index in range(n):
            rng = np.random.default_rng(derive_seed(seed, "measure vlm", LETTER, index))
            poster = random_poster(rng, held_out=held_out)
            made.append((draw_poster(poster, rng), write(poster), write(misspell(poster, rng))))
        facts[f"vlm_true_beats_wrong_{name}"] = _wins(EchoReward(vlm, query=query, batch_size=32), made)
    return facts


def _wrong_scene(kind: str, seed: int) -> tuple[Image.Image, str, str]:
    rng = np.random.default_rng(seed)
    while kind not in wrong_kinds(claim := random_dense_claim(rng)):
        pass
    wording = int(rng.integers(3))
    image = draw_scene(dense_scene_of(claim, rng), rng)
    return image, write_dense(claim, wording), write_dense(corrupt_dense(claim, rng, kind), wording)


def _wins(reward: EchoReward, made: Iterable[tuple[Image.Image, str, str]]) -> dict:
    images, right, wrong = map(list, zip(*made, strict=True))
    names = [str(index) for index in range(len(images))]
    pairs = zip(reward(images, right, names), reward(images, wrong, names), strict=True)
    return share(sum(a > b for a, b in pairs), len(images))


def measure(
    vlm: str, t2i: str, *, vae: Path | None = None, drawings: int, pairs: int, prompts: int, images: int, steps: int,
    guidance_scale: float, grid: Path | None, seed: int, adapter: Path | None = None,
) -> dict:  # fmt: skip
    """All measurements: those of the VAE with `drawings` > 0, those of the VLM on drawn pictures with `pairs` > 0,
    those on generated images, half of the prompts posters and half dense scenes, with `prompts` > 0. A model that no
    measurement needs is not loaded."""
    facts: dict = {}
    if drawings:
        facts |= after_vae(vae or Path(model_path(t2i, "t2i")) / "vae", drawings, seed)
    reader = load_vlm(vlm) if pairs or prompts else None
    if pairs and reader is not None:
        facts |= vlm_on_drawings(reader, pairs, seed)
    if prompts and reader is not None:
        facts |= on_generated(
            reader, t2i, prompts=prompts, images=images, steps=steps, guidance_scale=guidance_scale, grid=grid,
            seed=seed, adapter=adapter,
        )  # fmt: skip
    return facts


def on_generated(
    vlm: Vlm, t2i: str, *, prompts: int, images: int, steps: int, guidance_scale: float, grid: Path | None, seed: int,
    adapter: Path | None,
) -> dict:  # fmt: skip
    """What the text-to-image model draws, and how far the rewards agree with the oracles within a prompt."""
    subjects: list[Any] = []
    for index in range(prompts):
        rng = np.random.default_rng(derive_seed(seed, "measure prompts", index))
        subjects.append(random_poster(rng, held_out=True) if index % 2 else random_dense_claim(rng))
    texts = [
        write_prompt(what, index // 2 % 3) if isinstance(what, Poster) else write_dense(what, index // 2 % 3)
        for index, what in enumerate(subjects)
    ]
    family = load_family(family_in(model_path(t2i, "t2i")) or DEFAULT, t2i, dtype="float32")
    who = "base"
    if adapter is not None:
        who, family.transformer = "adapter", load_trained(family.transformer, adapter)
    generated = generate(family, texts, images, steps, guidance_scale, seed)
    posters, scenes = PosterTally(), SceneTally()
    verdicts = [
        [(posters if isinstance(what, Poster) else scenes).add(what, image) for image in group]
        for what, group in zip(subjects, generated, strict=True)
    ]
    echo, reading = EchoReward(vlm, batch_size=32), EchoReward(vlm, query=READ_QUERY, batch_size=32)
    rewards = [
        reading(group, [write_label(what)] * images, [text] * images)
        if isinstance(what, Poster)
        else echo(group, [text] * images, [text] * images)
        for what, text, group in zip(subjects, texts, generated, strict=True)
    ]
    facts = {**scenes.told(f"{who}_scenes"), **(posters.told(f"{who}_posters") if posters.images else {})}
    for name, first in (("scenes", 0), ("posters", 1)):
        facts[f"reward_auc_within_prompt_{name}"] = within_prompt_auc(rewards[first::2], verdicts[first::2])
    if grid is not None:
        draw_grid(generated, texts, verdicts, rewards, grid)
        print(f"grid: {grid}", file=sys.stderr)
    return facts
