"""Images of the gallery as benchmarks score them: dense captions fact by fact, posters letter by letter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from textocr_world import write_folder

from promptecho.benchmarks.captions.dense import FACTS, claim_of, evaluate, group_of
from promptecho.benchmarks.captions.layout import CaptionsLayout
from promptecho.benchmarks.registry import load_scorer
from promptecho.benchmarks.scoring import ImageFolder, Scored, ScoringOptions
from promptecho.benchmarks.textocr.gallery import COUNTS, poster_prompts
from promptecho.benchmarks.textocr.prompts import parse_prompt as parse_row
from promptecho.captions.prompts import read_prompts
from promptecho.config import load_experiment
from promptecho.config.rewards import RewardSection
from promptecho.errors import DataError
from promptecho.files import write_jsonl
from promptecho.gallery.captions import corrupt_dense, dense_scene_of, parse_dense, random_dense_claim, write_dense
from promptecho.gallery.datasets import write_poster_prompts
from promptecho.gallery.drawing import draw_poster, draw_scene
from promptecho.gallery.look_oracle import detect_things
from promptecho.gallery.posters import READ_QUERY, Poster, parse_prompt, texts_of_label
from promptecho.gallery.words import is_held_out
from promptecho.provenance import Provenance
from promptecho.scores import Scores
from promptecho.tables.collect import ScoreFile
from promptecho.tables.kinds import make_table
from promptecho.train.labels import load_labels
from promptecho.train.prompts import TrainingPrompt

ROOT = Path(__file__).resolve().parents[2]


def drawn(caption: str, seed: int = 0):
    rng = np.random.default_rng(seed)
    return draw_scene(dense_scene_of(parse_dense(caption), rng), rng)


@pytest.mark.parametrize(
    ("caption", "group", "shown", "wrong"),
    [
        ("A small red circle.", "one", "A large red circle.", "wrong: size"),
        ("Two blue squares. There is no ring.", "two", "Two blue squares and a red ring.", "wrong: negation"),
        ("A red ring above a striped black star.", "three", "A red ring below a striped black star.", "relation"),
        ("A striped green cross.", "one", "A green cross.", "shows 1 green cross; wrong: texture"),
    ],
)
def test_each_fact_right_and_wrong(caption, group, shown, wrong):
    claim = claim_of(caption)
    assert group_of(claim) == group
    assert evaluate(claim, detect_things(drawn(caption))).correct
    verdict = evaluate(claim, detect_things(drawn(shown)))
    assert not verdict.correct and wrong in verdict.reason


def test_captions_that_may_mean_one_thing_twice_are_not_judged():
    with pytest.raises(DataError, match="names circle twice"):
        claim_of("A red circle and a circle.")
    claim_of("A small red circle and a large red circle.")


def score_file(scored: Scored, run: str, step: int) -> ScoreFile:
    provenance = Provenance(
        experiment="g", run=run, step=step, benchmark="posters", scorer="textocr", backend="gallery", mode="official",
        prompts_digest=scored.prompts_digest, judge_model="the gallery's oracle", n=len(scored.items), failures=0,
    )  # fmt: skip
    scores = Scores(provenance=provenance, summary=scored.summary, items=scored.items, parts=scored.parts)
    return ScoreFile(Path(f"{run}.json"), scores)


def test_dense_captions_are_scored_by_clauses_and_facts(tmp_path):
    prompts, claims = tmp_path / "prompts.jsonl", []
    for index in range(12):
        claims.append(random_dense_claim(np.random.default_rng(index)))
    write_jsonl(prompts, [{"data_id": f"c{i}", "caption": write_dense(one, i % 3)} for i, one in enumerate(claims)])
    layout = CaptionsLayout(prompts, tmp_path / "images", 1)
    (tmp_path / "images").mkdir()
    for index, claim in enumerate(claims):
        rng = np.random.default_rng(100 + index)
        claim = corrupt_dense(claim, rng, "object") if index < 3 else claim
        draw_scene(dense_scene_of(claim, rng), rng).save(layout.image_path(index, 0))
    layout.describe(range(12))
    scored = load_scorer("captions", ScoringOptions("gallery")).score(ImageFolder(tmp_path / "images", prompts, 1))
    assert [item.outcome for item in scored.items] == [0.0] * 3 + [1.0] * 9
    assert scored.summary["overall"] == 0.75 and 0 < scored.summary["fact object"] < 1
    assert {item.group for item in scored.items} <= {"one", "two", "three", "more"}
    parts = {item.group.removeprefix("fact ") for item in scored.parts}
    assert {"object", "count", "color"} <= parts <= set(FACTS)
    assert len({(item.prompt_id, item.image_index) for item in scored.parts}) == len(scored.parts)


def test_judged_posters_have_held_out_words_and_training_ones_none(tmp_path):
    rows = poster_prompts(5, seed=1)
    assert [row["category"] for row in rows] == [category for category in COUNTS.values() for _ in range(5)]
    assert all(is_held_out(word) for row in rows for word in row["text"])
    assert all([word for _, word in parse_prompt(row["prompt"]).texts] == row["text"] for row in rows)
    assert all(parse_row(row, "row").group == row["category"] for row in rows)
    write_poster_prompts(40, 3, tmp_path / "train.jsonl")
    prompts = [TrainingPrompt(row.image_id, row.caption) for row in read_prompts(tmp_path / "train.jsonl")]
    labels = load_labels(RewardSection(label=str(tmp_path / "train.jsonl")), 0, prompts)
    assert labels is not None and len(prompts) == len({prompt.text for prompt in prompts}) == 40
    for prompt in prompts:
        asked = parse_prompt(prompt.text)
        assert texts_of_label(labels[prompt.prompt_id]) == asked.texts
        assert not any(is_held_out(word) for _, word in asked.texts)


def poster_folder(tmp_path, wrong: int):
    rows = poster_prompts(2, seed=1)
    images = []
    for place, row in enumerate(rows):
        poster = parse_prompt(row["prompt"])
        if place < wrong:
            (role, word), *rest = poster.texts
            poster = Poster(poster.ground, ((role, word[:-1] + ("A" if word[-1] != "A" else "E")), *rest))
        images.append(draw_poster(poster))
    tmp_path.mkdir()
    return write_folder(tmp_path, rows, images)


def test_posters_are_scored_letter_by_letter_and_role_by_role(tmp_path):
    scorer = load_scorer("textocr", ScoringOptions("gallery"))
    scored = scorer.score(poster_folder(tmp_path / "one", wrong=2))
    assert [item.outcome for item in scored.items] == [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    characters = sum(row["characters"] for row in scored.raw)
    assert scored.summary["character_error_rate"] == 2 / characters
    assert scored.summary["overall"] == 4 / 6 and scored.summary["main_title"] < 1
    rates = [row["edits"] / row["characters"] for row in scored.raw]
    assert scored.summary["image_error_rate"] == pytest.approx(np.mean(rates))
    assert scored.raw[0]["lines"][0]["role"] == "main_title"


def test_the_right_word_in_another_place_is_wrong(tmp_path):
    (row,) = [row for row in poster_prompts(2, seed=1) if row["data_id"] == "texts1-000"]
    poster = parse_prompt(row["prompt"])
    (role, word) = poster.texts[0]
    moved = Poster(poster.ground, (("other_text" if role != "other_text" else "subtitle", word),))
    scored = load_scorer("textocr", ScoringOptions("gallery")).score(
        write_folder(tmp_path, [row], [draw_poster(moved)])
    )
    assert scored.items[0].outcome == 0.0 and scored.raw[0]["edits"] == 2 * len(word)


def test_a_prompt_of_another_world_fails_and_is_no_zero(tmp_path):
    rows = [{"data_id": "a", "prompt": "A shop sign.", "text": ["OPEN"]}, poster_prompts(1, seed=1)[0]]
    images = [draw_poster(parse_prompt(rows[1]["prompt"]))] * 2
    scored = load_scorer("textocr", ScoringOptions("gallery")).score(write_folder(tmp_path, rows, images))
    assert [(item.outcome, item.failed) for item in scored.items] == [(None, True), (1.0, False)]


def test_the_table_has_paired_intervals_of_accuracy_and_character_errors(tmp_path):
    scorer = load_scorer("textocr", ScoringOptions("gallery"))
    files = [
        score_file(scorer.score(poster_folder(tmp_path / run, wrong)), run, step)
        for run, step, wrong in (("base", 0, 3), ("posters-s1", 30, 1))
    ]
    table = make_table("textocr", files, name="posters")
    before, after = table.rows
    assert after["delta"].value == pytest.approx(100 * 2 / 6) and after["delta"].low is not None
    error = after["errors_delta"]
    assert error.value == pytest.approx(after["character_error_rate"].value - before["character_error_rate"].value)
    assert error.low < error.value < 0 and "main_title" in after and "errors_delta" not in before


def test_the_experiments_train_on_what_the_vlm_was_taught_and_are_judged_alike(tmp_path):
    """The committed prompts are those that the command beside them writes; one image set serves both experiments."""
    folder = ROOT / "config/experiments"
    posters, dense = (load_experiment(folder / f"{name}.yaml") for name in ("gallery-posters", "gallery"))
    (reward,) = posters.rewards
    assert reward.query == READ_QUERY and reward.label == posters.captions.prompts
    write_poster_prompts(500, 32, tmp_path / "posters.jsonl")
    assert (tmp_path / "posters.jsonl").read_bytes() == (ROOT / str(reward.label)).read_bytes()
    assert posters.image_sets["posters"] == dense.image_sets["posters"]
    assert posters.training == dense.training and posters.models == dense.models
