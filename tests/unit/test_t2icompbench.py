"""T2I-CompBench++: its measures, the official prompts' phrases, BLIP-VQA and CLIP, and from images to a table."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_blip import bert_tokenizer, save_blip_and_clip, tiny_blip_vqa
from tiny_vlm import image
from typer.testing import CliRunner

from promptecho.benchmarks.geneval.clip_colors import clip_pixels
from promptecho.benchmarks.registry import load_layout, load_scorer
from promptecho.benchmarks.scoring import ImageFolder, ScoringOptions
from promptecho.benchmarks.t2icompbench.blip_vqa import SIZE, BlipVqa, blip_pixels
from promptecho.benchmarks.t2icompbench.clip_similarity import ClipSimilarity
from promptecho.benchmarks.t2icompbench.golden import CHECKS
from promptecho.benchmarks.t2icompbench.measures import by_similarity
from promptecho.benchmarks.t2icompbench.models import BlipAndClip, model_paths
from promptecho.benchmarks.t2icompbench.official import PACKED, pack_set, phrase_places
from promptecho.benchmarks.t2icompbench.oracle import CompbenchOracle, phrase_probabilities
from promptecho.benchmarks.t2icompbench.prompts import CompbenchPrompt, parse_listed, read_prompts
from promptecho.benchmarks.t2icompbench.rules import (
    PLACES,
    NamedBox,
    asked_phrases,
    attribute_score,
    numeracy_score,
    place_score,
    question,
    spatial_score,
    yes_probability,
)
from promptecho.benchmarks.t2icompbench.shapes import compbench_rows, write_compbench_prompts
from promptecho.cli import app
from promptecho.errors import ConfigError, DataError, ModelError
from promptecho.files import read_jsonl
from promptecho.scores import read_scores
from promptecho.shapes.grammar import corrupt, parse, scene_of
from promptecho.shapes.render import render

COLOR = {"prompt": "a teal canoe and a pink oar", "category": "color", "phrases": ["a teal canoe", "a pink oar"]}
SPATIAL = {"prompt": "a canoe near an oar", "category": "spatial", "objects": ["canoe", "oar"]}
NUMBERS = {"prompt": "two oars", "category": "numeracy", "counts": [["oar", 2]]}


def test_the_published_code_and_the_rules_agree(golden_folder):
    """Case by case; a case with another answer is found."""
    total = 0
    for name, check in CHECKS.items():
        cases = read_jsonl(golden_folder / name)
        assert [problem for case in cases for problem in check.function(case)] == []
        other = {**cases[0]["expected"], "score": 2.0} if isinstance(cases[0]["expected"], dict) else 2.0
        assert len(check.function({**cases[0], "expected": other})) == 1
        total += len(cases)
    assert total == 108


BOXES = st.builds(
    lambda name, x, y, width, height, score: NamedBox(name, (x, y, x + width, y + height), score),
    st.sampled_from(["cat", "kite", "person"]), st.floats(0, 500), st.floats(0, 500), st.floats(1, 300),
    st.floats(1, 300), st.floats(0.5, 1),
)  # fmt: skip


@given(BOXES, BOXES)
def test_places_have_opposites(first, second):
    for one, other in (("on the left of", "on the right of"), ("on the top of", "on the bottom of")):
        forth, back = place_score(one, first.box, second.box), place_score(other, second.box, first.box)
        assert forth == pytest.approx(back) and 0 <= forth <= 1
        assert min(forth, place_score(other, first.box, second.box)) == 0
    assert place_score("next to", first.box, second.box) == place_score("near", second.box, first.box) > 0
    assert place_score("on top of", first.box, second.box) == 0  # as officially, which knows "on the top of" alone


@given(st.lists(BOXES, max_size=6), st.sampled_from(PLACES))
def test_scores_of_boxes_lie_in_0_to_1(found, place):
    spatial = spatial_score(found, ("cat", "girl"), place)
    assert spatial == 0 or 0.5 <= spatial <= 1
    names = {box.name for box in found}
    assert spatial == 0 or {"cat", "person"} <= names
    numbers = numeracy_score(found, [("cat", 1), ("boy", 2)])
    assert numbers == pytest.approx(sum(numeracy_score(found, [pair]) for pair in (("cat", 1), ("boy", 2))) / 2)
    assert (numbers == 0) == (not names & {"cat", "person"})


def test_phrases_are_asked_as_published():
    phrases = ["top", "The left", "the left", *(f"thing {k}" for k in range(9))]
    assert asked_phrases(phrases) == ["The left", *(f"thing {k}" for k in range(7))]
    assert question('A "Big" (red) cat!') == "a big red cat?" and question("cat ") == "cat ?"
    assert len(question("word " * 60).split(" ")) == 50
    assert yes_probability(0, 0) == 0.5 and yes_probability(-900, 900) == 0 and yes_probability(1, 0) == 0.7311
    assert attribute_score([0.3333, 0.3333]) == 0.1111 and attribute_score([0.9]) == 0.9


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({**COLOR, "category": "complex"}, "category 'complex': expected one of color, shape, texture, spatial"),
        ({**COLOR, "category": ["color"]}, "category ['color']: expected one of color"),
        ({**COLOR, "prompt": " "}, "prompt is missing or empty"),
        ({**COLOR, "phrases": []}, "phrases is missing or empty"),
        ({**COLOR, "phrases": ["a cat", 3]}, "phrases: 3 is no text"),
        ({**COLOR, "phrases": ["the left", "top"]}, "none of them is asked about"),
        ({**SPATIAL, "objects": ["oar"]}, "objects ['oar']: expected two"),
        ({**SPATIAL, "place": "above"}, "place 'above': expected one of on side of, next to"),
        ({**SPATIAL, "prompt": "an oar below a canoe"}, "place None: expected one of"),
        ({**NUMBERS, "counts": [["oar"]]}, "counts: ['oar']: expected a name and a number from 1"),
        ({**NUMBERS, "counts": [["oar", True]]}, "counts: ['oar', True]"),
        ({**NUMBERS, "counts": None}, "counts is missing or empty"),
    ],
)
def test_a_bad_prompt_names_file_and_line(tmp_path, row, told):
    path = tmp_path / "p.jsonl"
    path.write_text(f"{json.dumps(COLOR)}\n\n{json.dumps(row)}\n")
    with pytest.raises(DataError) as caught:
        read_prompts(path)
    assert f"{path}:3: " in str(caught.value) and told in str(caught.value) and "\n" not in str(caught.value)


def test_prompts_are_named_by_their_places_and_survive_beside_images(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in (COLOR, SPATIAL, NUMBERS)))
    read = read_prompts(path)
    assert [prompt.data_id for prompt in read] == ["00000", "00001", "00002"] and read[1].place == "near"
    assert [parse_listed(prompt.row(), "here") for prompt in read] == read


def test_the_official_files_become_one_with_the_phrases_where_they_are_known_to_be(tmp_path):
    places = phrase_places()
    assert {category: len(prompts) for category, prompts in places.items()} == dict.fromkeys(places, 300)
    for category in PACKED:  # lines of digits, which name their own places
        lines = [f"{n} " + "0123456789" * 20 for n in range(300)]
        (tmp_path / f"{category}_val.txt").write_bytes("\r\n".join(lines).encode())
    pack_set(tmp_path)
    packed = read_prompts(tmp_path / "validation.jsonl")
    assert len(packed) == 1200 and packed[-1] == CompbenchPrompt("01199", lines[-1], "non_spatial")
    (start, end), *_ = places["shape"][7]
    assert packed[307].category == "shape" and packed[307].phrases[0] == lines[7][start:end]
    (tmp_path / "texture_val.txt").write_text("one\ntwo\n")
    with pytest.raises(DataError, match=r"texture_val\.txt: 2 prompts, not 300; fetch the set again"):
        pack_set(tmp_path)


def test_the_oracle_finds_right_what_a_prompt_claims_and_wrong_what_it_does_not(tmp_path):
    rows = compbench_rows(5, 3)
    assert rows == compbench_rows(5, 3) != compbench_rows(5, 4) and len({row["prompt"] for row in rows}) == 20
    with pytest.raises(DataError, match="of numeracy: the vocabulary has about"):
        compbench_rows(90, 1)
    write_compbench_prompts(5, 3, tmp_path / "p.jsonl")
    rng, measures = np.random.default_rng(0), CompbenchOracle().measures
    for prompt in read_prompts(tmp_path / "p.jsonl"):
        claim, measure = parse(prompt.prompt), measures[prompt.category]
        assert measure(render(scene_of(claim, rng), rng), prompt)[0] > 0.97, (
            prompt
        )  # well-formed shapes score 0.95 to 1
        wrong = measure(render(scene_of(corrupt(claim, rng), rng), rng), prompt)[0]
        assert wrong <= 0.5, prompt
    picture = render(scene_of(parse("two red stars"), rng), rng)
    assert phrase_probabilities(picture, ["a star", "a red star", "two stars", "three stars", "a blue star"]) == [
        1, 1, 1, 0, 0,
    ]  # fmt: skip
    with pytest.raises(DataError, match="the phrase 'a teal canoe' is not one about shapes .*; use backend blip"):
        phrase_probabilities(picture, COLOR["phrases"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_blip_and_clip(tmp_path_factory.mktemp("models"))


def test_pixels_are_those_of_blips_own_processor():
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    picture = image(5, (70, 41))
    expected = BlipImageProcessorPil(size={"height": SIZE, "width": SIZE})(picture, return_tensors="np")
    assert np.abs(blip_pixels(picture) - expected["pixel_values"][0]).max() < 1e-5


def test_an_answer_is_that_of_generation_but_for_the_opening_of_the_question(folder):
    """The library opens a question with [CLS]; with [ENC] in its place, as published, both are one."""
    blip, questions = BlipVqa(str(folder / "blip-vqa")), ["a red cat?", "a small blue bird?"]
    pictures = [image(k, (48, 32)) for k in range(2)]
    found = [blip.logits(picture, questions) for picture in pictures]
    model, tokenizer = blip._model, blip._tokenizer
    for picture, pairs in zip(pictures, found, strict=True):
        for text, pair in zip(questions, pairs, strict=True):
            tokens = tokenizer(text, return_tensors="pt")
            tokens.input_ids[:, 0] = model.config.text_config.vocab_size - 1
            scores = model.generate(
                input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, interpolate_pos_encoding=True,
                pixel_values=torch.from_numpy(blip_pixels(picture)[None]), max_new_tokens=1, do_sample=False,
                output_scores=True, return_dict_in_generate=True,
            ).scores[0][0]  # fmt: skip
            expected = [float(scores[tokenizer.convert_tokens_to_ids(word)]) for word in ("yes", "no")]
            assert pair == pytest.approx(expected, abs=1e-4)
    assert abs(found[0][0][0] - found[0][1][0]) > 1e-3 and abs(found[0][0][0] - found[1][0][0]) > 1e-3
    assert blip.probabilities(pictures[0], ["A red cat"]) == [yes_probability(*found[0][0])]


def test_a_cosine_is_that_of_clips_own_forward_pass(folder):
    clip, picture = ClipSimilarity(str(folder / "clip")), image(3, (48, 32))
    tokens = clip._tokenizer("a dog runs", return_tensors="pt")
    with torch.no_grad():
        output = clip._model(**tokens, pixel_values=torch.from_numpy(clip_pixels(picture)[None]))
    expected = float(output.logits_per_text[0, 0] / clip._model.logit_scale.exp())
    assert clip.similarity(picture, "a dog runs") == pytest.approx(expected, abs=1e-5)
    with pytest.raises(DataError, match="tokens, and CLIP reads 77; shorten the prompt"):
        clip.similarity(picture, "a dog runs " * 20)


def test_a_cosine_below_0_scores_0_and_is_kept():
    prompt = CompbenchPrompt("0", "a dog runs", "non_spatial")
    for cosine, score in ((-0.01, 0.0), (0.3, 0.3), (1.0000001, 1.0)):
        measure = by_similarity(lambda picture, text, value=cosine: value)
        assert measure(image(3, (8, 8)), prompt) == (score, {"cosine": cosine})


def test_models_that_are_not_there_or_are_others(folder, tmp_path):
    assert model_paths(None)[0] == "Salesforce/blip-vqa-capfilt-large" and model_paths("a/b")[0] == "a/b"
    (tmp_path / "blip-vqa").mkdir()
    with pytest.raises(ModelError, match=r"no folder clip/ in it; download openai/clip-vit-base-patch32 to .*/clip"):
        BlipAndClip(str(tmp_path))
    other = bert_tokenizer(words=())
    other.save_pretrained(tmp_path / "blip-vqa")
    tiny_blip_vqa(len(bert_tokenizer())).save_pretrained(tmp_path / "blip-vqa")
    with pytest.raises(ModelError, match="blip-vqa: its tokenizer of .* entries is not BLIP-VQA's"):
        BlipVqa(str(tmp_path / "blip-vqa"))
    with pytest.raises(ModelError, match="'yolo' is unknown; known backends: blip, oracle"):
        load_scorer("t2icompbench", ScoringOptions("yolo"))
    with pytest.raises(ConfigError, match=r"T2I-CompBench\+\+ has only 'official'"):
        load_scorer("t2icompbench", ScoringOptions("oracle", mode="fixed"))


def drawn(root: Path, prompts: Path, wrong: int) -> None:
    """Two images for each prompt; in those of the first `wrong` prompts one fact is wrong."""
    rng, layout = np.random.default_rng(5), load_layout("t2icompbench", prompts, root, 2)
    for p, text in enumerate(layout.texts):
        for i in range(2):
            claim = parse(text) if p >= wrong else corrupt(parse(text), rng)
            layout.image_path(p, i).parent.mkdir(parents=True, exist_ok=True)
            render(scene_of(claim, rng), rng).save(layout.image_path(p, i))
    layout.describe(layout.chosen)


def test_models_judge_a_folder_and_refuse_categories_that_need_boxes(folder, tmp_path):
    prompts, root = tmp_path / "p.jsonl", tmp_path / "images"
    rows = [{**COLOR, "prompt": "a red circle and a blue star"}, {"prompt": "a star", "category": "non_spatial"}]
    prompts.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    drawn(root, prompts, 0)
    scorer = load_scorer("t2icompbench", ScoringOptions("blip", model=str(folder)))
    first, again = (scorer.score(ImageFolder(root, prompts)) for _ in range(2))
    assert first == again and list(first.summary) == ["overall", "color", "non_spatial"]
    assert first.summary["overall"] == pytest.approx((first.summary["color"] + first.summary["non_spatial"]) / 2)
    assert [fact["phrase"] for fact in first.raw[0]["phrases"]] == COLOR["phrases"]
    product = math.prod(fact["probability"] for fact in first.raw[0]["phrases"])
    assert first.items[0].outcome == pytest.approx(product, abs=5e-5)
    prompts.write_text(f"{json.dumps({**SPATIAL, 'prompt': 'a star', 'place': 'near'})}\n")
    drawn(tmp_path / "more", prompts, 0)
    with pytest.raises(DataError, match="'00000' .'a star'.: backend blip has no measure for category spatial, only"):
        scorer.score(ImageFolder(tmp_path / "more", prompts))


def test_from_images_to_a_table(tmp_path):
    prompts = tmp_path / "p.jsonl"
    write_compbench_prompts(3, 2, prompts)
    for run, step, wrong in (("base", 0, 12), ("echo-s1", 4, 3)):
        drawn(tmp_path / f"images-{run}", prompts, wrong)
        if run == "base":  # an image that cannot be read has failed; it is never counted as wrong
            (tmp_path / "images-base" / "00011_00001.png").write_bytes(b"no image")
        words = ["--benchmark", "t2icompbench", "--backend", "oracle", "--images", tmp_path / f"images-{run}"]
        words += ["--prompts", prompts, "--images-per-prompt", 2, "--experiment", "e", "--run", run, "--step", step]
        words += ["--out", tmp_path / f"e/scores/t2icompbench/{run}/{step}.json"]
        done = CliRunner().invoke(app, ["score", *map(str, words)])
        assert done.exit_code == 0, done.output
    base, after = (read_scores(tmp_path / f"e/scores/t2icompbench/{name}.json") for name in ("base/0", "echo-s1/4"))
    assert (base.provenance.n, base.provenance.failures) == (24, 1) and base.summary["color"] == 0
    assert list(after.summary) == ["overall", "color", "shape", "spatial", "numeracy"]
    assert after.summary["color"] == 0 and after.summary["shape"] == 1 and after.summary["numeracy"] == 1
    raw = read_jsonl(tmp_path / "e/scores/t2icompbench/echo-s1/4.raw.jsonl")
    assert {box["name"] for box in raw[-1]["boxes"]} == {read_prompts(prompts)[-1].counts[0][0]}

    words = ["tables", "--table", "t2icompbench", "--scores", tmp_path / "e", "--out", tmp_path / "tables"]
    words += ["--max-failures", 0.1]
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == 0, done.output
    first, second = csv.DictReader((tmp_path / "tables/t2icompbench.csv").read_text().splitlines())
    for column in ("color", "shape", "spatial", "numeracy", "overall"):
        assert float(second[column]) == pytest.approx(100 * after.summary[column], abs=0.1)
    assert float(second["overall_low"]) < float(second["overall"]) < float(second["overall_high"])
    assert (first["failures"], second["failures"]) == ("1", "0") and "texture" not in first
    text = (tmp_path / "tables/t2icompbench.md").read_text()
    assert "Color, Shape: the product over a prompt's noun phrases" in text and "looked at by: oracle" in text
