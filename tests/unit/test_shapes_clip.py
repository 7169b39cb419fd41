"""A CLIP of the embedded world: its tokenizer, what it is trained on, and its training."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel
from typer.testing import CliRunner

from promptecho.cli import app
from promptecho.errors import ModelError
from promptecho.measure_shapes import clipscore_of, on_renders
from promptecho.shapes.clip_model import MOST_TOKENS, build_clip_tokenizer
from promptecho.shapes.grammar import parse, scene_of
from promptecho.shapes.render import render
from promptecho.shapes.train_clip import ContrastiveExample, also_true, fact_key, sample, train_clip, true_keys
from promptecho.shapes.world import Scene, Thing


def test_every_text_has_one_begin_one_end_and_no_unknown_token(tmp_path):
    """An unknown token has the end's id, and CLIP reads a text at its first end."""
    tokenizer = build_clip_tokenizer()
    begin, end = tokenizer.convert_tokens_to_ids(["<|startoftext|>", "<|endoftext|>"])
    for text in (
        "A photo depicts Three red circles.",
        "Zürich 数 x",
        "a photo of a blue star to the left of a ring",
        "",
    ):
        ids = tokenizer(text).input_ids
        assert (ids[0], ids[-1]) == (begin, end) and ids.count(end) == ids.count(begin) == 1
    words = tokenizer.tokenize("There are two black crosses and a purple triangle")
    told = ["there", "are", "two", "black", "crosses", "and", "a", "purple", "triangle"]
    assert words == [f"{word}</w>" for word in told]
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("A red ring.").input_ids == tokenizer("A red ring.").input_ids


def test_a_claim_is_known_whichever_group_it_names_first():
    left, right = parse("A red circle to the left of a blue star."), parse("A blue star to the right of a red circle.")
    assert fact_key(left) == fact_key(right) != fact_key(parse("A blue star to the left of a red circle."))
    scene = Scene((Thing("circle", "red", 15, 30, 8), Thing("star", "blue", 50, 30, 8)))
    told = ("A blue star and a red circle.", "A circle to the left of a star.", "A star and a circle.")
    assert {fact_key(left), *(fact_key(parse(text)) for text in told)} <= true_keys(scene)
    assert fact_key(parse("A star to the left of a circle.")) not in true_keys(scene)


def test_texts_that_are_true_of_a_picture_are_no_negatives():
    def example(text: str, *wrong: str) -> ContrastiveExample:
        claim = parse(text)
        scene = scene_of(claim, np.random.default_rng(0))
        return ContrastiveExample(render(scene), scene, claim, tuple(map(parse, wrong)), (text, *wrong))

    examples = [
        example("A red ring.", "A blue ring.", "A red star."),
        example("A blue ring.", "A red ring.", "A blue star."),
        example("A ring.", "A star.", "Two rings."),
    ]
    found = also_true(examples)
    assert found.shape == (3, 9)
    first = [False, False, True, False, False, True, False, False, False]  # true of a red ring, but for its own caption
    assert found[0].tolist() == first
    drawn = [one for seed in range(20) for one in sample(np.random.default_rng(seed))]
    assert len(drawn) == 40 and all(len(one.texts) == 3 for one in drawn)
    own = torch.arange(40)
    masked = also_true(drawn)
    assert not masked[own, own].any() and masked.float().mean() < 0.05
    tokenizer = build_clip_tokenizer()
    assert max(len(tokenizer(text).input_ids) for one in drawn for text in one.texts) < MOST_TOKENS


def test_a_training_gives_the_same_bytes_and_what_it_wrote_is_gone_on_with(tmp_path):
    torch.manual_seed(1)  # of no influence
    for name in ("a", "b"):
        train_clip(tmp_path / name, tmp_path / f"{name}.jsonl", steps=2, batch_size=6)
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    for name in ("c", "d"):
        train_clip(tmp_path / name, tmp_path / "log.jsonl", init=tmp_path / "a", steps=2, batch_size=6, seed=1)
    train_clip(tmp_path / "scratch", tmp_path / "log.jsonl", steps=2, batch_size=6, seed=1)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("c", "d", "scratch")]
    assert files[0] == files[1] != files[2]
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 2 and rows[-1]["loss"] > 0
    assert AutoImageProcessor.from_pretrained(tmp_path / "a", backend="pil").crop_size["height"] == 64
    assert CLIPModel.from_pretrained(tmp_path / "a").config.vision_config.patch_size == 8


def test_the_one_that_ships_tells_facts_apart_but_not_directions():
    found = on_renders(clipscore_of("shapes-clip"), 100, 5, "clip")
    without = {fact: one for fact, one in found.items() if not fact.endswith(("corrupted", "_relation"))}
    right, n = (sum(round(one["value"] * one["n"]) if key else one["n"] for one in without.values()) for key in (1, 0))
    assert n > 60 and right / n > 0.9
    with pytest.raises(ModelError, match="^shapes-third is no CLIP; CLIPs ship as shapes-clip"):
        clipscore_of("shapes-third")


def test_the_command_trains_one_that_is_measured_and_named_by_its_folder(tmp_path):
    """`clipscore` takes the folder that the training writes; six pictures teach nothing, so no share is asked for."""
    folder = tmp_path / "clip"
    words = ["shapes", "train-clip", "--out", str(folder), "--log", str(tmp_path / "log.jsonl"), "--steps", "1"]
    done = CliRunner().invoke(app, [*words, "--batch-size", "6"])
    assert done.exit_code == 0, f"{done.output}{done.exception!r}"
    found = on_renders(clipscore_of(str(folder)), 8, 0, "clip")
    whole = found.pop("clip_matched_beats_corrupted")
    assert whole["n"] == 8 == sum(one["n"] for one in found.values()) and 0 <= whole["value"] <= 1
    refused = CliRunner().invoke(app, ["shapes", "measure", "--clip", "nowhere", "--prompts", "0"])
    assert isinstance(refused.exception, ModelError) and "nowhere: no such CLIP folder" in str(refused.exception)
    shipped = CliRunner().invoke(
        app,
        [
            "shapes",
            "measure",
            "--clip",
            "shapes-clip",
            "--pairs",
            "2",
            "--prompts",
            "0",
            "--vlm",
            "shapes-tenth",
            "--json",
        ],
    )
    assert shipped.exit_code == 0 and json.loads(shipped.stdout)["clip_matched_beats_corrupted"]["n"] == 2
    refused = CliRunner().invoke(app, ["shapes", "measure", "--clip", str(folder), "--world", "gallery"])
    assert refused.exit_code == 2 and "--clip has no effect with --world gallery" in refused.output
