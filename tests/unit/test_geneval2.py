"""GenEval 2: prompts in atoms, Soft-TIFA, the model's first token, and the way from images to a table."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_vlm import image, shared_folder
from typer.testing import CliRunner

from promptecho.benchmarks.geneval2.first_token import FirstTokenJudge, first_token_probabilities
from promptecho.benchmarks.geneval2.oracle import AtomOracle, answer
from promptecho.benchmarks.geneval2.prompts import PromptAtom, parse_listed, read_prompts
from promptecho.benchmarks.geneval2.rules import (
    NUMERALS,
    answer_probability,
    arithmetic_mean,
    asked,
    first_tokens,
    geometric_mean,
    spellings,
)
from promptecho.benchmarks.geneval2.shapes import geneval2_rows, prompt_row, write_geneval2_prompts
from promptecho.benchmarks.registry import load_layout, load_scorer
from promptecho.benchmarks.scoring import ScoringOptions
from promptecho.cli import app
from promptecho.errors import ConfigError, DataError, ModelError
from promptecho.files import read_jsonl
from promptecho.scores import read_scores
from promptecho.shapes.grammar import Claim, Group, corrupt, parse, scene_of
from promptecho.shapes.render import render
from promptecho.vlm import load_vlm
from promptecho.vlm.inputs import batch_inputs, render_prompt

PROMPT = {
    "prompt": "two amber lamps pushing a kettle",
    "atom_count": 5,
    "vqa_list": [["How many lamps are in the image?", "two"], ["Are the lamps pushing the kettle?", "Yes"]],
    "skills": ["count", "verb"],
}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms())
def test_means_are_of_the_scores_whatever_their_order_and_gm_is_the_smaller_one(scores, random):
    am, gm = arithmetic_mean(scores), geometric_mean(scores)
    assert min(scores) - 1e-12 <= gm <= am + 1e-12 and am <= max(scores) + 1e-12
    assert gm == 0 or min(scores) > 0
    other = list(scores)
    random.shuffle(other)
    assert (arithmetic_mean(other), geometric_mean(other)) == (am, gm)


def test_a_right_answer_may_be_spelt_in_several_ways_and_each_token_counts_once():
    assert spellings("How many cats are in the image?", "six") == ["six", "Six", " six", " Six", "6", " 6"]
    assert spellings("Are the cats red?", "Yes") == ["Yes", "yes", " yes", " Yes"]
    assert len({text for number in NUMERALS for text in spellings("How many?", number)}) == 6 * len(NUMERALS)
    tokens = {"six": [3, 9], "Six": [5], " six": [3], " Six": [7], "6": [8], " 6": [0, 8]}  # some share the first
    found = first_tokens(tokens, tokens.__getitem__)
    assert found == [3, 5, 7, 8, 0]
    assert answer_probability([0.25, 0.125]) == 0.375 and answer_probability([0.75, 0.2500001]) == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"atom_count": 0}, "atom_count 0: expected a whole number"),
        ({"atom_count": True}, "atom_count True"),
        ({"prompt": " "}, "prompt is missing or empty"),
        ({"vqa_list": []}, "vqa_list is missing or empty"),
        ({"skills": ["count"]}, "1 skills for 2 questions"),
        ({"skills": ["count", "texture"]}, "question 2: skill 'texture': expected one of object, attribute"),
        ({"vqa_list": [["How many?"], ["Red?", "Yes"]]}, "question 1: ['How many?']: expected a pair"),
        ({"vqa_list": [["How many lamps?", "eleven"], ["Red?", "Yes"]]}, "question 1: answer 'eleven'"),
        ({"vqa_list": [["How many lamps?", "two"], ["Red?", "No"]]}, "question 2: answer 'No' to 'Red?'"),
    ],
)  # fmt: skip
def test_a_bad_prompt_names_file_and_line(tmp_path, changes, told):
    path = tmp_path / "p.jsonl"
    path.write_text(f"{json.dumps(PROMPT)}\n\n{json.dumps({**PROMPT, **changes})}\n")
    with pytest.raises(DataError) as caught:
        read_prompts(path)
    assert f"{path}:3: " in str(caught.value) and told in str(caught.value) and "\n" not in str(caught.value)


def test_prompts_are_named_by_their_places_and_survive_beside_images(tmp_path):
    (tmp_path / "p.jsonl").write_text(f"{json.dumps(PROMPT)}\n" * 2)  # the same prompt twice is two prompts
    first, second = read_prompts(tmp_path / "p.jsonl")
    assert (first.data_id, second.data_id, second.group) == ("00000", "00001", "atoms 5")
    assert first.atoms[1] == PromptAtom("Are the lamps pushing the kettle?", "Yes", "verb")
    assert parse_listed(second.row(), "here") == second
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no prompts"):
        read_prompts(tmp_path / "empty.jsonl")


def test_claims_in_atoms():
    rows = geneval2_rows(6, 3)
    assert rows == geneval2_rows(6, 3) != geneval2_rows(6, 4)
    assert len({row["prompt"] for row in rows}) == 24
    assert [row["atom_count"] for row in rows] == [2] * 6 + [3] * 6 + [5] * 6 + [4] * 6
    claim = Claim((Group(3, "cross", "red"), Group(1, "star", None)), "left")
    row = prompt_row(claim, "words")
    assert row["vqa_list"] == [
        ["How many crosses are in the image?", "three"],
        ["Are the crosses red?", "Yes"],
        ["Are there any crosses in the image?", "Yes"],
        ["Are the crosses to the left of the star?", "Yes"],
        ["How many stars are in the image?", "one"],
        ["Are there any stars in the image?", "Yes"],
    ]
    assert row["skills"] == ["count", "attribute", "object", "position", "count", "object"] and row["atom_count"] == 5
    with pytest.raises(DataError, match="kind 'single': the vocabulary has about"):
        geneval2_rows(1000, 1)


def test_the_oracle_finds_right_what_a_prompt_claims_and_wrong_what_it_does_not(tmp_path):
    write_geneval2_prompts(5, 1, tmp_path / "p.jsonl")
    rng, oracle = np.random.default_rng(0), AtomOracle()
    for prompt in read_prompts(tmp_path / "p.jsonl"):
        claim = parse(prompt.prompt)
        scores = oracle.probabilities(render(scene_of(claim, rng), rng), prompt.atoms)
        assert scores == [1.0] * len(prompt.atoms), prompt
        scores = oracle.probabilities(render(scene_of(corrupt(claim, rng), rng), rng), prompt.atoms)
        assert min(scores) == 0, prompt
    assert answer([], "How many stars are in the image?") == "zero" and answer([], "Is the star red?") == "no"
    with pytest.raises(DataError, match="'Is it art.' is not one about shapes .*; use backend vlm"):
        oracle.probabilities(image(1), [PromptAtom("Is it art?", "Yes", "object")])


@pytest.fixture(scope="module")
def vlm():
    return load_vlm(shared_folder())


ATOMS = [
    PromptAtom("How many circles are in the image?", "three", "count"),
    PromptAtom("Are the circles red?", "Yes", "attribute"),
    PromptAtom("Are there any purple shapes to the left of the yellow star in the image?", "Yes", "position"),
]


def test_the_first_token_is_that_of_generation(vlm):
    """As the published code has it: generate one token, softmax of its scores, the sum over spellings."""
    picture, questions = image(3, (48, 32)), [asked(atom.question) for atom in ATOMS]
    tokens = [[vlm.tokenizer.encode(text)[0] for text in spellings(atom.question, atom.answer)] for atom in ATOMS]
    found = first_token_probabilities(vlm, picture, questions, tokens)
    scores = FirstTokenJudge(str(shared_folder()), "cpu").probabilities(picture, ATOMS)
    for question, some, row, score in zip(questions, tokens, found, scores, strict=True):
        inputs = batch_inputs(vlm, [picture], [render_prompt(vlm, question)], padding_side="left")
        options = {"max_new_tokens": 1, "do_sample": False, "output_scores": True, "return_dict_in_generate": True}
        expected = vlm.model.generate(**inputs, **options).scores[0][0].softmax(dim=-1)
        assert row == pytest.approx(expected[some].tolist(), abs=1e-6)
        assert score == pytest.approx(sum(float(expected[token]) for token in set(some)), abs=1e-6)
        assert 0 < score < 1
    with pytest.raises(DataError, match="exceed its context of 512; take smaller images"):
        first_token_probabilities(vlm, picture, ["Is it? " * 400], [[0]])


def test_backends_and_modes_that_are_not_there():
    with pytest.raises(ModelError, match="'yolo' is unknown; known backends: oracle, vlm"):
        load_scorer("geneval2", ScoringOptions("yolo"))
    with pytest.raises(ConfigError, match="GenEval 2 has only 'official'"):
        load_scorer("geneval2", ScoringOptions("oracle", mode="fixed"))


def drawn(root: Path, prompts: Path, wrong: int) -> None:
    """Two images for each prompt; in those of the first `wrong` prompts one fact is wrong."""
    rng, layout = np.random.default_rng(5), load_layout("geneval2", prompts, root, 2)
    for p, text in enumerate(layout.texts):
        for i in range(2):
            claim = parse(text) if p >= wrong else corrupt(parse(text), rng)
            layout.image_path(p, i).parent.mkdir(parents=True, exist_ok=True)
            render(scene_of(claim, rng), rng).save(layout.image_path(p, i))
    layout.describe(layout.chosen)


def test_from_images_to_a_table(tmp_path):
    prompts = tmp_path / "p.jsonl"
    write_geneval2_prompts(3, 2, prompts)
    for run, step, wrong in (("base", 0, 12), ("echo-s1", 4, 5)):
        drawn(tmp_path / f"images-{run}", prompts, wrong)
        if run == "base":  # an image that cannot be read has failed; it is never counted as wrong
            (tmp_path / "images-base" / "00011_00001.png").write_bytes(b"no image")
        words = ["--benchmark", "geneval2", "--backend", "oracle", "--images", tmp_path / f"images-{run}"]
        words += ["--prompts", prompts, "--images-per-prompt", 2, "--experiment", "e", "--run", run, "--step", step]
        words += ["--out", tmp_path / f"e/scores/geneval2/{run}/{step}.json"]
        done = CliRunner().invoke(app, ["score", *map(str, words)])
        assert done.exit_code == 0, done.output
    base, after = (read_scores(tmp_path / f"e/scores/geneval2/{name}.json") for name in ("base/0", "echo-s1/4"))
    assert (base.provenance.n, base.provenance.failures) == (24, 1) and base.summary["overall"] == 0
    assert after.summary["overall"] == pytest.approx(7 / 12) and after.summary["am"] > after.summary["overall"]
    assert list(after.summary) == [
        "overall", "am", "atoms 2", "atoms 3", "atoms 4", "atoms 5", "object", "attribute", "count", "position",
    ]  # fmt: skip
    raw = read_jsonl(tmp_path / "e/scores/geneval2/echo-s1/4.raw.jsonl")
    skills = [atom["probability"] for row in raw for atom in row["atoms"] if atom["skill"] == "attribute"]
    assert after.summary["attribute"] == pytest.approx(math.fsum(skills) / len(skills))

    words = ["tables", "--table", "geneval2", "--scores", tmp_path / "e", "--out", tmp_path / "tables"]
    words += ["--max-failures", 0.1]
    assert CliRunner().invoke(app, [*map(str, words)]).exit_code == 0
    first, second = csv.DictReader((tmp_path / "tables/geneval2.csv").read_text().splitlines())
    assert float(second["overall"]) == pytest.approx(100 * 7 / 12, abs=0.1)
    assert float(second["overall_low"]) < float(second["overall"]) < float(second["overall_high"])
    assert float(second["am"]) == pytest.approx(100 * after.summary["am"], abs=0.1)
    gained = 100 * (after.summary["am"] - base.summary["am"])
    assert float(second["am_delta"]) == pytest.approx(gained, abs=4)  # but for the pair of the image that failed
    assert (first["failures"], second["failures"]) == ("1", "0") and "verb" not in first
