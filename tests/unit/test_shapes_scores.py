"""Small VLMs of the first world, and one that learns to write scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from transformers import Qwen2Tokenizer, Qwen3VLForConditionalGeneration

from promptecho.shapes.grammar import Claim, Group, corrupt, parse, random_claim, scene_of
from promptecho.shapes.models import VLM_SIZES, build_vlm
from promptecho.shapes.oracle import detect, judge
from promptecho.shapes.questions import SCORE_QUERY
from promptecho.shapes.scored import SCORING, facts_of, scored, scoring_tokenizer
from promptecho.shapes.tokenizer import build_tokenizer
from promptecho.shapes.train_vlm import Batcher, train_vlm

ROOT = Path(__file__).resolve().parents[2]


def test_every_fact_of_a_true_claim_is_shown_and_one_of_a_wrong_claim_is_not():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        claim = random_claim(rng)
        scene = scene_of(claim, rng)
        assert all(facts_of(claim, scene))
        wrong = facts_of(corrupt(claim, rng), scene)
        assert len(wrong) == len(facts_of(claim, scene)) and not all(wrong)
    rng = np.random.default_rng(0)
    two_of_a_kind = scene_of(Claim((Group(2, "star", "red"),)), rng)
    assert facts_of(Claim((Group(3, "star", "red"),)), two_of_a_kind) == [True, False, True]
    assert facts_of(Claim((Group(1, "ring", "red"),)), two_of_a_kind) == [False, False, False]


def test_a_score_is_ten_where_the_oracle_finds_every_fact():
    rng, agree, scores = np.random.default_rng(1), 0, set()
    for _ in range(100):
        one = scored(rng)
        score = json.loads(one.answer)["score"]
        shown = judge(parse(one.query.removeprefix(SCORE_QUERY.format(prompt=""))), detect(one.image))
        agree, scores = agree + (shown == (score == 10)), scores | {score}
    assert agree >= 95 and len(scores) > 5, "it may err on damaged pictures only"


def test_the_question_for_a_score_is_the_one_that_the_experiment_asks():
    asked = (ROOT / "config/experiments/inferscore-shapes.txt").read_text(encoding="utf-8").strip()
    assert asked == SCORE_QUERY


def test_every_conversation_with_a_score_fits_and_its_words_are_single_tokens():
    tokenizer = scoring_tokenizer()
    batcher, rng = Batcher(tokenizer, SCORING), np.random.default_rng(2)
    ids, labels, _ = batcher([(one.query, one.answer) for one in (scored(rng) for _ in range(100))])
    assert ids.shape == labels.shape and ids.shape[1] <= SCORING.length - 8
    assert len(tokenizer("Score").input_ids) == 1
    assert all(len(tokenizer(f" {word}").input_ids) == 1 for word in ("JSON", "well", "shows", "image"))


def test_small_vlms_have_the_share_of_parameters_that_they_are_named_for():
    tokenizer = build_tokenizer()
    count = {
        name: sum(p.numel() for p in build_vlm(tokenizer, size=size).parameters()) for name, size in VLM_SIZES.items()
    }
    assert 0.3 < count["third"] / count["full"] < 0.37 and 0.09 < count["tenth"] / count["full"] < 0.12


def test_a_small_vlm_is_trained_and_loads(tmp_path):
    train_vlm(tmp_path / "vlm", tmp_path / "log.jsonl", recipe=SCORING, size=VLM_SIZES["tenth"], steps=2, batch_size=3)
    model = Qwen3VLForConditionalGeneration.from_pretrained(tmp_path / "vlm")
    assert model.config.text_config.hidden_size == VLM_SIZES["tenth"].width
    assert len(Qwen2Tokenizer.from_pretrained(tmp_path / "vlm")) == len(scoring_tokenizer())
