"""TIIF-Bench over the embedded world: generated prompts, and the oracle's answers to their questions."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from promptecho.benchmarks.tiif.attributes import ATTRIBUTES, SUBSCORES, column_weights
from promptecho.benchmarks.tiif.oracle import ORACLE
from promptecho.benchmarks.tiif.prompts import TiifPrompt, read_prompts
from promptecho.benchmarks.tiif.shapes import KINDS, tiif_claims, tiif_prompts, write_tiif_prompts
from promptecho.errors import DataError
from promptecho.files import read_jsonl
from promptecho.shapes.grammar import Claim, Group, corrupt, parse
from promptecho.shapes.oracle import DetectedShape, detect
from promptecho.shapes.render import render
from promptecho.shapes.world import COLORS, Scene, Thing, place, relation


def drawn(claim: Claim, seed: int) -> Image.Image:
    """A scene that fulfils the claim: each of the first group in its relation to each of the second, clearly."""
    rng = np.random.default_rng(seed)
    kinds = [
        (group.shape, color)
        for group in claim.groups
        for color in [group.color or str(rng.choice(list(COLORS)))] * group.count
    ]
    first = claim.groups[0].count
    while True:
        scene = place(kinds, rng)
        pairs = product(scene.things[:first], scene.things[first:])
        if claim.relation is None or all(relation(a, b) == claim.relation for a, b in pairs):
            return render(scene, rng)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from(sorted(KINDS)))
def test_the_oracle_gives_the_expected_answers_on_true_images(seed, attribute):
    claim = KINDS[attribute][0](np.random.default_rng(seed))
    asked = KINDS[attribute][1](claim)
    objects = detect(drawn(claim, seed))
    assert [(question, ORACLE.answer(question, objects)) for question, _ in asked] == asked


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.sampled_from(["shape+color", "2d_spatial_relation", "numeracy", "color+2d"]))
def test_a_wrong_fact_costs_an_answer(seed, attribute):
    rng = np.random.default_rng(seed)
    claim = KINDS[attribute][0](rng)
    asked = KINDS[attribute][1](claim)
    wrong = corrupt(claim, rng)
    objects = detect(drawn(wrong, seed))
    assert [ORACLE.answer(question, objects) for question, _ in asked] != [expected for _, expected in asked]


def test_prompts_are_packed_prompts_in_the_language_of_the_world(tmp_path):
    count = write_tiif_prompts(5, 3, tmp_path / "prompts.jsonl")
    prompts = read_prompts(tmp_path / "prompts.jsonl")
    assert len(prompts) == count == 5 * len(KINDS)
    assert Counter(prompt.type for prompt in prompts) == dict.fromkeys(KINDS, 5)
    for prompt in prompts:
        ORACLE.check(prompt)
        assert parse(prompt.short_description) == parse(prompt.long_description)
        assert sum(group.count for group in parse(prompt.short_description).groups) <= 6
        assert prompt.short_description.startswith("a photo of ")
        assert len(prompt.long_description) > len(prompt.short_description)
        assert len(set(prompt.questions)) == len(prompt.questions)
    assert {answer for prompt in prompts for answer in prompt.answers} == {"yes", "no"}


def test_every_sub_score_is_there_that_this_world_can_show():
    assert set(KINDS) <= set(ATTRIBUTES)
    columns = column_weights(KINDS)
    assert set(SUBSCORES) - set(columns) == {"text", "style"}
    assert len(KINDS) == 13


def test_prompts_are_a_function_of_the_seed_and_differ():
    assert tiif_prompts(4, 1) == tiif_prompts(4, 1) != tiif_prompts(4, 2)
    claims = tiif_claims(6, 0)
    assert len(set(claims)) == len(claims)
    assert tiif_claims(2, 0) == [pair for k, pair in enumerate(claims) if k % 6 < 2]
    small = Counter(row["type"] for row in tiif_prompts(40, 0))
    assert small["numeracy"] == 18 and small["differentiation"] == 30 and small["shape+color"] == 40
    with pytest.raises(DataError, match="ask for 1 or more"):
        tiif_prompts(0, 0)


def test_bytes_are_the_same(tmp_path):
    for name in ("a", "b"):
        write_tiif_prompts(2, 7, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_jsonl(tmp_path / "a") == tiif_prompts(2, 7)


RED, BLUE = DetectedShape("circle", "red", (0, 0, 10, 10), 1.0), DetectedShape("circle", "blue", (40, 0, 50, 10), 1.0)
STAR = DetectedShape("star", "red", (0, 40, 10, 50), 1.0)
BROKEN = DetectedShape("star", "black", (40, 40, 50, 50), 0.3)


@pytest.mark.parametrize(
    ("question", "objects", "expected"),
    [
        ("Is there a circle in the image?  ", [RED, BLUE], "yes"),
        ("Is there a green circle in the image?", [RED, BLUE], "no"),
        ("Are there circles in the image?", [RED], "no"),
        ("Is there a black star in the image?", [BROKEN], "no"),
        ("Is there a black object in the image?", [BROKEN], "yes"),
        ("Is the number of circles 2?", [RED, BLUE, STAR], "yes"),
        ("Is the number of red objects 2?", [RED, BLUE, STAR], "yes"),
        ("Is the number of objects 2?", [RED, BLUE, BROKEN], "no"),
        ("Are the circles red in color?", [RED, BLUE], "no"),
        ("Is the star red in color?", [RED, STAR], "yes"),
        ("Is the star red in color?", [RED], "no"),
        ("Is the red circle to the left of the blue circle?", [RED, BLUE], "yes"),
        ("Are the circles above the star?", [RED, STAR], "yes"),
        ("Are the circles above the star?", [RED], "no"),
        ("Are the circles to the left of the star?", [RED, BLUE, STAR], "no"),
        ("Are there more circles than stars in the image?", [RED, BLUE, STAR], "yes"),
        ("Are there more circles than stars in the image?", [RED, STAR], "no"),
        ("Are there two circles of different colors in the image?", [RED, BLUE, STAR], "yes"),
        ("Are there two circles of different colors in the image?", [RED, RED], "no"),
        ("Are there two objects of different shapes in the image?", [RED, STAR], "yes"),
        ("Are there two objects of different shapes in the image?", [RED, BLUE, STAR], "no"),
    ],
)
def test_questions_mean_what_they_say(question, objects, expected):
    assert ORACLE.answer(question, objects) == expected


@pytest.mark.parametrize(
    "question",
    [
        "Is there a dog in the image?",
        "Is there a circle?",
        "Is the circle near the star?",
        "Is the circle pink in color?",
    ],
)
def test_other_questions_are_refused(question):
    with pytest.raises(DataError, match="not in the language"):
        ORACLE.answer(question, [RED])
    prompt = TiifPrompt(
        type="numeracy", index=3, short_description="s", long_description="l", questions=[question], answers=["no"]
    )
    with pytest.raises(DataError, match="prompt numeracy/3: the oracle does not understand"):
        ORACLE.check(prompt)


def test_a_scene_of_three_groups_is_counted_whole():
    claim = parse("A red circle, two blue squares and a black star.")
    asked = KINDS["real_world"][1](claim)
    assert ("Is the number of objects 4?", "yes") in asked
    assert claim.groups[1] == Group(2, "square", "blue")
    things = (Thing("circle", "red", 14, 14, 8), Thing("star", "black", 48, 48, 9))
    answers = dict.fromkeys(["Is there a red circle in the image?", "Is there a black star in the image?"], "yes")
    objects = detect(render(Scene(things)))
    for question, _ in asked:
        if question in answers:
            assert ORACLE.answer(question, objects) == "yes"
    assert ORACLE.answer("Is the number of objects 4?", objects) == "no"
