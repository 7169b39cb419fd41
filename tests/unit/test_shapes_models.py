"""The models that ship with the project load through the libraries' own loaders and do what they are for."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from promptecho.measure_shapes import within_prompt_auc
from promptecho.rewards.echo.reward import EchoReward
from promptecho.rewards.inferscore.options import InferScoreSection
from promptecho.rewards.inferscore.reward import InferScoreReward
from promptecho.seeds import derive_seed
from promptecho.shapes.grammar import corrupt, random_claim, scene_of, write, write_places
from promptecho.shapes.oracle import detect
from promptecho.shapes.render import render
from promptecho.shapes.train_vlm import PLACES_QUERY
from promptecho.vlm import load_processor, load_vlm


@pytest.fixture(scope="module")
def paths() -> dict[str, str]:
    command = [sys.executable, "-m", "promptecho", "shapes", "paths", "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def preferred(reward: EchoReward, count: int) -> list[bool]:
    """Whether the true caption beats the same one with a fact wrong, for each of `count` renders."""
    images, right, wrong = [], [], []
    for index in range(count):
        rng = np.random.default_rng(derive_seed("shipped vlm", index))
        claim = random_claim(rng)
        images.append(render(scene_of(claim, rng), rng))
        right.append(write(claim, index % 3))
        wrong.append(write(corrupt(claim, rng), index % 3))
    names = [str(index) for index in range(len(images))]
    return [a > b for a, b in zip(reward(images, right, names), reward(images, wrong, names), strict=True)]


def test_the_vlm_prefers_true_captions(paths):
    """Renders with one fact of their caption wrong."""
    assert np.mean(preferred(EchoReward(load_vlm(paths["vlm"])), 80)) >= 0.95


def test_the_vlm_says_where_things_are(paths):
    """Its second question: the true places of two objects beat the same words with the objects exchanged."""
    reward = EchoReward(load_vlm(paths["vlm"]), query=PLACES_QUERY)
    images, right, wrong = [], [], []
    for index in range(60):
        rng = np.random.default_rng(derive_seed("shipped vlm places", index))
        claim = random_claim(rng, "relation")
        scene = scene_of(claim, rng)
        true = write_places(scene, rng)
        first, second = (f"{thing.color} {thing.shape}" for thing in scene.things)
        images.append(render(scene, rng))
        right.append(true)
        wrong.append(true.replace(first, "?").replace(second, first).replace("?", second))
    names = [str(index) for index in range(len(images))]
    wins = [a > b for a, b in zip(reward(images, right, names), reward(images, wrong, names), strict=True)]
    assert np.mean(wins) >= 0.85


def test_the_folders_load_with_the_libraries_own_loaders(paths):
    from diffusers import ZImagePipeline
    from transformers import AutoModelForImageTextToText

    assert type(AutoModelForImageTextToText.from_pretrained(paths["vlm"])).__name__ == "Qwen3VLForConditionalGeneration"
    assert load_processor(paths["vlm"]).image_processor.patch_size == 8
    pipeline = ZImagePipeline.from_pretrained(paths["t2i"], dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
    images = pipeline(
        ["a photo of a red circle"] * 4, height=64, width=64, num_inference_steps=10, guidance_scale=1.0,
        generator=generators,
    ).images  # fmt: skip
    assert any(found.color == "red" for image in images for found in detect(image))


def test_auc_counts_pairs_within_prompts_only():
    rewards, verdicts = [[1.0, 2.0], [9.0, 8.0], [5.0, 6.0]], [[False, True], [True, False], [True, True]]
    found = within_prompt_auc(rewards, verdicts)
    assert (found["value"], found["high"], found["pairs"], found["prompts"]) == (1, 1, 2, 2) and found["low"] < 1
    assert within_prompt_auc([[2.0, 1.0, 1.0]], [[False, True, False]])["value"] == 0.25
    assert within_prompt_auc([[2.0]], [[True]]) == {"value": None, "low": None, "high": None, "pairs": 0, "prompts": 0}


def test_the_interval_of_auc_counts_prompts_not_pairs():
    """100 pairs of four prompts that are all right or all wrong: as many independent ones would give 0.40 to 0.60."""
    found = within_prompt_auc([[2.0, 1.0] * 5, [1.0, 2.0] * 5] * 2, [[True, False] * 5] * 4)
    assert (found["pairs"], found["prompts"]) == (100, 4)
    assert found["high"] - found["low"] > 0.5


@pytest.mark.parametrize(("name", "share", "least"), [("shapes-third", 1 / 3, 0.9), ("shapes-tenth", 0.1, 0.85)])
def test_smaller_vlms_have_their_share_of_the_parameters_and_prefer_true_captions(paths, name, share, least):
    small, whole = load_vlm(name), load_vlm(paths["vlm"])
    counts = [sum(one.numel() for one in vlm.model.parameters()) for vlm in (small, whole)]
    assert counts[0] / counts[1] == pytest.approx(share, rel=0.15)
    assert np.mean(preferred(EchoReward(small), 40)) >= least


def test_the_vlm_of_inferscore_writes_scores_which_others_do_not(paths):
    """True captions get higher scores than captions of other scenes; a VLM that was taught captions writes no score."""
    images, prompts = [], []
    for index in range(16):
        rng = np.random.default_rng(derive_seed("shipped vlm scores", index))
        claim = random_claim(rng)
        images.append(render(scene_of(claim, rng), rng))
        prompts.append(write(claim, index % 3))
    settings = InferScoreSection(template="config/experiments/inferscore-shapes.txt", max_new_tokens=32)
    names = [str(index) for index in range(len(images))]
    reward = InferScoreReward(load_vlm("shapes-scores"), settings)
    true, other = reward(images, prompts, names), reward(images, prompts[1:] + prompts[:1], names)
    assert np.mean(true) >= 0.8 and np.mean(other) <= np.mean(true) - 0.3
    without = InferScoreReward(load_vlm(paths["vlm"]), settings)(images[:4], prompts[:4], names[:4])
    assert np.isnan(without).all()
