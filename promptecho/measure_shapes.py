"""How good the embedded models are, on data none of them was trained on: `promptecho shapes measure`."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from promptecho.audit.measures import auc, outcome
from promptecho.config.families import DEFAULT, family_in
from promptecho.errors import ModelError
from promptecho.intervals import wilson_interval
from promptecho.item_columns import LightItem
from promptecho.progress import Progress
from promptecho.rewards.base import RewardContext, RewardFunction
from promptecho.rewards.clipscore.options import ClipScoreSection
from promptecho.rewards.clipscore.reward import build as build_clipscore
from promptecho.rewards.echo.reward import EchoReward
from promptecho.seeds import derive_seed
from promptecho.shapes.grammar import Claim, corrupt, describe, random_claim, scene_of, write, wrong_fact
from promptecho.shapes.oracle import WELL_FORMED, detect, judge
from promptecho.shapes.render import render
from promptecho.shapes.world import wide_scene
from promptecho.shipped import CLIPS, is_shipped, model_path
from promptecho.t2i.registry import load_family
from promptecho.t2i.trained import load_trained
from promptecho.train.data import normal
from promptecho.vlm import load_vlm


def share(hits: int, n: int) -> dict:
    """A share with its Wilson interval."""
    low, high = wilson_interval(hits, n)
    return {"value": round(hits / n, 4), "n": n, "low": round(low, 4), "high": round(high, 4)}


def oracle_on_renders(n: int, seed: int) -> dict:
    """Share of rendered scenes (half prompt world, half wide world) that the oracle reads without error."""
    hits = 0
    for index in range(n):
        rng = np.random.default_rng(derive_seed(seed, "measure oracle", index))
        scene = scene_of(random_claim(rng), rng) if index % 2 else wide_scene(rng)
        hits += judge(describe(scene, rng), detect(render(scene, rng)))
    return share(hits, n)


def clipscore_of(clip: str) -> RewardFunction:
    """CLIPScore by a CLIP, as a training has it by default.

    Raises:
        ModelError: it is another model that ships with the project.
    """
    if is_shipped(clip) and clip not in CLIPS:
        raise ModelError(f"{clip} is no CLIP; CLIPs ship as {', '.join(CLIPS)}")
    return build_clipscore(RewardContext(options=ClipScoreSection(path=clip), batch_size=32))


def on_renders(reward: RewardFunction, n: int, seed: int, who: str = "vlm") -> dict[str, dict]:
    """Share of rendered images whose true caption gets a higher reward than the same with one fact wrong, in all and
    by the fact that is wrong."""
    images, right, wrong, facts = [], [], [], []
    for index in range(n):
        rng = np.random.default_rng(derive_seed(seed, "measure vlm", index))
        claim = random_claim(rng)
        wording = int(rng.integers(3))
        images.append(render(scene_of(claim, rng), rng))
        right.append(write(claim, wording))
        changed = corrupt(claim, rng)
        wrong.append(write(changed, wording))
        facts.append(wrong_fact(claim, changed))
    names = [str(index) for index in range(n)]
    wins = [a > b for a, b in zip(reward(images, right, names), reward(images, wrong, names), strict=True)]
    name = f"{who}_matched_beats_corrupted"
    result = {name: share(sum(wins), n)}
    for fact in sorted(set(facts)):
        chosen = [win for win, found in zip(wins, facts, strict=True) if found == fact]
        result[f"{name}_{fact}"] = share(sum(chosen), len(chosen))
    return result


def generate(family, prompts: list[str], images: int, steps: int, guidance_scale: float, seed: int) -> list[list]:
    """Images of each prompt."""
    shape = family.latent_shape(64, 64)
    bar = Progress("generate", len(prompts) * images, "images")
    result = []
    for index, prompt in enumerate(prompts):
        noise = torch.stack([normal(shape, seed, "measure", index, k) for k in range(images)])
        cond = family.encode_prompts([prompt]) * images
        result.append(
            family.decode(family.sample(noise, cond, num_inference_steps=steps, guidance_scale=guidance_scale))
        )
        bar.advance(images)
    return result


def within_prompt_auc(rewards: list[list[float]], verdicts: list[list[bool]]) -> dict:
    """Share of the pairs of a right and a wrong image of one prompt in which the right one has the higher reward, with
    a 95 % interval that counts prompts as random, the pairs, and the prompts that have such pairs."""
    items = [
        LightItem(str(prompt), index, "all", outcome(better, worse), False)
        for prompt, (values, right) in enumerate(zip(rewards, verdicts, strict=True))
        for index, (better, worse) in enumerate(
            product(
                [value for value, ok in zip(values, right, strict=True) if ok],
                [value for value, ok in zip(values, right, strict=True) if not ok],
            )
        )
    ]
    if not items:
        return {"value": None, "low": None, "high": None, "pairs": 0, "prompts": 0}
    found = auc(items)["all"]
    bounds = {key: round(found[key], 4) for key in ("value", "low", "high")}
    return {**bounds, "pairs": len(items), "prompts": found["prompts"]}


def measure(
    vlm: str, t2i: str, clip: str | None = None, *, pairs: int, prompts: int, images: int, steps: int,
    guidance_scale: float, grid: Path | None, seed: int, adapter: Path | None = None,
) -> dict:  # fmt: skip
    """All measurements: those on renders with `pairs` > 0, those on generated images with `prompts` > 0, from the base
    model or with an adapter on it; those of CLIPScore with a `clip`."""
    reward = EchoReward(load_vlm(vlm), batch_size=32)
    clipscore = None if clip is None else clipscore_of(clip)
    facts: dict = {}
    if pairs:
        facts = {"oracle_on_renders": oracle_on_renders(2 * pairs, seed), **on_renders(reward, pairs, seed)}
        facts |= {} if clipscore is None else on_renders(clipscore, pairs, seed, "clip")
    if not prompts:
        return facts
    claims: list[Claim] = []
    for index in range(prompts):
        claims.append(random_claim(np.random.default_rng(derive_seed(seed, "measure prompts", index))))
    texts = [write(claim, index % 3) for index, claim in enumerate(claims)]
    family = load_family(family_in(model_path(t2i, "t2i")) or DEFAULT, t2i, dtype="float32")
    who = "base"
    if adapter is not None:
        who, family.transformer = "adapter", load_trained(family.transformer, adapter)
    generated = generate(family, texts, images, steps, guidance_scale, seed)
    verdicts = [
        [judge(claim, detect(image)) for image in group] for claim, group in zip(claims, generated, strict=True)
    ]
    rewards = [reward(group, [text] * images, [text] * images) for text, group in zip(texts, generated, strict=True)]
    facts[f"{who}_right"] = share(sum(map(sum, verdicts)), prompts * images)
    for kind in ("single", "count", "relation", "pair"):
        rows = [group for claim, group in zip(claims, verdicts, strict=True) if claim.kind == kind]
        if rows:
            facts[f"{who}_right_{kind}"] = share(sum(map(sum, rows)), len(rows) * images)
    facts["reward_auc_within_prompt"] = within_prompt_auc(rewards, verdicts)
    if clipscore is not None:
        groups = zip(texts, generated, strict=True)
        by_clip = [list(clipscore(group, [text] * images, [text] * images)) for text, group in groups]
        facts["clip_auc_within_prompt"] = within_prompt_auc(by_clip, verdicts)
    scores = [d.score for group in generated for image in group for d in detect(image)]
    facts["crisp_objects"] = share(sum(score >= WELL_FORMED for score in scores), max(len(scores), 1))
    if grid is not None:
        draw_grid(generated, texts, verdicts, rewards, grid)
        print(f"grid: {grid}", file=sys.stderr)
    return facts


def draw_grid(generated, texts, verdicts, rewards, path: Path, columns: int = 10, rows: int = 10) -> None:
    """The first images of each prompt, framed green (right) or red (wrong), with prompt and reward."""
    per_prompt = -(-columns * rows // len(generated))
    cells = [
        (generated[i][k], texts[i], verdicts[i][k], rewards[i][k])
        for i in range(len(generated))
        for k in range(min(per_prompt, len(generated[i])))
    ][: columns * rows]
    width, height = 148, 190
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (image, text, right, value) in enumerate(cells):
        x, y = index % columns * width + 6, index // columns * height + 6
        draw.rectangle((x - 3, y - 3, x + 130, y + 130), fill=(30, 150, 60) if right else (210, 40, 40))
        sheet.paste(image.resize((128, 128), Image.Resampling.NEAREST), (x, y))
        words, lines = text.split(), [""]
        for word in words:
            if len(lines[-1]) + len(word) > 22:
                lines.append("")
            lines[-1] += word + " "
        draw.multiline_text(
            (x, y + 132),
            "\n".join([*lines[:3], f"{'right' if right else 'wrong'} {value:.2f}"]),
            fill="black",
            spacing=1,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
