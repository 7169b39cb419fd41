"""LongText-Bench: the share of required words or characters that are read, its readers, and from images to a table."""

from __future__ import annotations

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judge_server import KEY, serving
from textocr_world import draw, write_folder, write_posters
from tiny_vlm import image, shared_folder
from typer.testing import CliRunner

from promptecho.benchmarks.longtext.judge import parse_reading
from promptecho.benchmarks.longtext.rules import matched_units, one_language, without_stock_phrases
from promptecho.benchmarks.longtext.scorer import STRIDE, verdicts
from promptecho.benchmarks.longtext.vlm_page import VlmPage
from promptecho.benchmarks.perception import PerceptionFailure
from promptecho.benchmarks.registry import load_scorer
from promptecho.benchmarks.scoring import ScoringOptions
from promptecho.benchmarks.templates import load_template
from promptecho.benchmarks.textocr.gallery import poster_prompts
from promptecho.benchmarks.textocr.prompts import read_prompts
from promptecho.benchmarks.textocr.rules import longtext_recall
from promptecho.cli import app
from promptecho.config.judges import JudgeSection
from promptecho.errors import ConfigError, DataError, ModelError
from promptecho.files import read_jsonl
from promptecho.scores import read_scores
from promptecho.vlm import load_vlm
from promptecho.vlm.inputs import batch_inputs, render_prompt

TEXT = st.text(alphabet="abB é'-.1山水 \n", max_size=20)


@given(st.lists(TEXT, min_size=1, max_size=4), TEXT, st.sampled_from(["en", "zh"]), st.randoms())
def test_units_are_those_of_text_rendering_and_their_order_does_not_count(required, read, language, random):
    found = matched_units(required, read, language)
    assert (sum(there for _, there in found), len(found)) == longtext_recall(required, read, language)
    assert all(there for _, there in matched_units(required, " ".join(required) + " x", language))
    assert not any(there for _, there in matched_units(required, "", language))
    words = read.split()
    random.shuffle(words)
    assert matched_units(required, " ".join(words), language) == found


def test_the_first_of_alike_words_count_as_read():
    assert matched_units(["On, and on", "and ON"], "on and\non", "en") == [
        ("on", True), ("and", True), ("on", True), ("and", False), ("on", False)
    ]  # fmt: skip


def test_stock_phrases_of_the_model_go_the_last_one_alone_or_all():
    reply = "OPEN\naddCriterion No text recognized."
    assert without_stock_phrases(reply, "official") == "OPEN\naddCriterion "
    assert without_stock_phrases(reply, "fixed") == "OPEN\n "
    thought = "<think>It says OPEN</think>SHUT addCriterion"
    assert parse_reading(thought, "fixed", "tolerant") == "SHUT "
    assert parse_reading(thought, "official", "official") == thought


def test_a_prompt_set_has_one_language_and_asks_for_text():
    assert one_language([("a", ["OPEN"]), ("b", ["Café"])]) == "en"
    assert one_language([("a", ["OPEN 开"])]) == "zh"
    with pytest.raises(DataError, match="prompt 'b' requires no text that counts"):
        one_language([("a", ["OPEN"]), ("b", ["!?"])])
    with pytest.raises(DataError, match="'c' requires Chinese text and prompt 'a' none.*an image set of its own"):
        one_language([("a", ["OPEN"]), ("c", ["开"])])


@pytest.mark.parametrize(("name", "language", "total"), [("text_prompts", "en", 4263), ("text_prompts_zh", "zh", 7944)])
def test_the_published_prompts(shared, name, language, total):
    prompts = read_prompts(shared / f"benchmarks/mirror/longtext_bench/{name}.jsonl")
    assert len(prompts) == 160 and one_language([(p.data_id, p.text) for p in prompts]) == language
    counts = [len(matched_units(prompt.text, "", language)) for prompt in prompts]
    assert sum(counts) == total and max(counts) < STRIDE


def test_the_model_reads_as_in_the_published_code(monkeypatch):
    """With its own settings, whose sampling is greedy and whose penalty for repetitions counts."""
    monkeypatch.setattr("promptecho.benchmarks.longtext.vlm_page.MAX_NEW_TOKENS", 24)
    picture, page, vlm = image(3, (48, 32)), VlmPage(str(shared_folder()), "cpu"), load_vlm(shared_folder())
    text = render_prompt(vlm, load_template("longtext", "read").fill())
    inputs = batch_inputs(vlm, [picture], [text], padding_side="left")
    length = inputs["input_ids"].shape[1]
    options = {"max_new_tokens": 24, "do_sample": False}
    read = {}
    for penalty in (1.0, 1.3):
        ids = vlm.model.generate(**inputs, repetition_penalty=penalty, **options)[0, length:]
        page._model.vlm.model.generation_config.repetition_penalty = penalty
        read[penalty] = page(picture)
        assert read[penalty] == vlm.tokenizer.decode(ids, skip_special_tokens=True).strip()
    assert read[1.0] != read[1.3]
    page._text = text.replace("Recognize", "Recognize " * 400)
    with pytest.raises(PerceptionFailure, match="exceed its context of 512"):
        page(picture)


def judged(tmp_path, server, **changed) -> ScoringOptions:
    settings = JudgeSection(
        kind="openai", model="reader", endpoint=server.endpoint("openai"), max_attempts=1, max_failed_share=0.5
    )
    return ScoringOptions("judge", judge=settings, answers=tmp_path / "answers", **changed)


ROWS = [
    {"data_id": "0", "prompt": "A sign.", "text": ["OPEN all DAY", "all"], "category": "sign", "length": "short"},
    {"data_id": "1", "prompt": "A poster.", "text": ["SALE"], "category": "poster", "length": "long"},
]


def test_a_judge_reads_and_who_gives_no_answer_makes_no_zero(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    folder = write_folder(tmp_path, ROWS, [draw("OPEN"), draw("SALE")])
    plan = lambda text, nth: None if nth == 0 else "refusal"  # noqa: E731
    with serving(plan=plan, answer=lambda text: "open, ALL\nnight") as server:
        options = judged(tmp_path, server)
        scorer = load_scorer("longtext", options)
        assert scorer.estimate(folder).calls == 2
        options.judge.__dict__["concurrency"] = 1
        scored = load_scorer("longtext", options).score(folder)
        assert len(server.log) == 2 and "Recognize the text" in server.log[0]["text"]
    assert [(item.image_index, item.outcome, item.group) for item in scored.items] == [
        (0, 1.0, "sign"), (1, 1.0, "sign"), (2, 0.0, "sign"), (3, 0.0, "sign"), (0, None, "poster")
    ]  # fmt: skip
    assert scored.summary == {"overall": 0.5, "length short": 0.5, "category sign": 0.5}
    assert scored.raw[0]["reason"] == "not read: day all" and scored.raw[0]["read"] == "open, ALL\nnight"
    assert verdicts(scored.items) == {("0", 0): 0.5, ("1", 0): None}
    assert scored.judge.unanswered == {"refused": 1}


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(ModelError, match="'yolo' is unknown; known backends: gallery, rapidocr, vlm"):
        load_scorer("longtext", ScoringOptions("yolo"))
    with pytest.raises(ConfigError, match="mode 'loose': LongText-Bench has"):
        load_scorer("longtext", ScoringOptions("gallery", mode="loose"))
    with pytest.raises(ConfigError, match="gallery has its model in its package; remove `model`"):
        load_scorer("longtext", ScoringOptions("gallery", model="shapes"))


def test_from_posters_to_a_table(tmp_path):
    rows = poster_prompts(3, seed=4)  # three with one word, with two, with three
    for run, step, wrong in (("base", 0, 9), ("echo-s1", 4, 2)):
        write_posters(tmp_path / run, rows, wrong)
        if run == "base":  # an image that cannot be read has failed; it is never counted as wrong
            (tmp_path / run / "00008_00001.png").write_bytes(b"no image")
        words = ["--benchmark", "longtext", "--backend", "gallery", "--images", tmp_path / run]
        words += ["--prompts", tmp_path / "prompts.jsonl", "--images-per-prompt", 2, "--experiment", "e"]
        words += ["--run", run, "--step", step, "--out", tmp_path / f"e/scores/longtext/{run}/{step}.json"]
        done = CliRunner().invoke(app, ["score", *map(str, words)])
        assert done.exit_code == 0, done.output
    base, after = (read_scores(tmp_path / f"e/scores/longtext/{name}.json") for name in ("base/0", "echo-s1/4"))
    assert (base.provenance.n, base.provenance.failures) == (36, 3)
    assert base.summary["overall"] == 16 / 33 and after.summary["overall"] == 32 / 36  # not the mean of images
    assert after.summary["category 1 text"] == 2 / 6 and base.summary["category 3 texts"] == 10 / 15
    raw = read_jsonl(tmp_path / "e/scores/longtext/base/0.raw.jsonl")
    assert len(raw) == 18 and raw[-1]["failed"] and raw[0]["read"] == "QQQ"

    words = ["tables", "--table", "longtext", "--scores", tmp_path / "e", "--out", tmp_path / "tables"]
    assert CliRunner().invoke(app, [*map(str, words), "--max-failures", "0.1"]).exit_code == 0
    first, second = csv.DictReader((tmp_path / "tables/longtext.csv").read_text().splitlines())
    assert float(second["overall"]) == pytest.approx(100 * 32 / 36, abs=0.1)
    assert float(second["overall_low"]) < float(second["overall"]) < float(second["overall_high"])
    assert float(second["delta"]) == pytest.approx(
        100 * 13 / 33, abs=0.1
    )  # 14 words more, of the pairs without failure
    assert (first["images"], first["failures"], second["3 texts"]) == ("33", "3", "100.0")
