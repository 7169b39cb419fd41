"""OneIG-Bench's alignment and text: rules, published files as prompt sets, its model, and from images to tables."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from judge_server import KEY, serving
from PIL import Image
from textocr_world import draw, write_folder, write_posters
from tiny_vlm import image, shared_folder
from typer.testing import CliRunner

from promptecho.benchmarks.dpg.questions import DpgQuestion, prompts_of, read_rows
from promptecho.benchmarks.dpg.rules import items_of
from promptecho.benchmarks.dpg.shapes import write_dpg_questions
from promptecho.benchmarks.longtext.vlm_page import as_jpeg
from promptecho.benchmarks.oneig_alignment import prompt_files
from promptecho.benchmarks.oneig_alignment.rules import asked, class_of, counted
from promptecho.benchmarks.oneig_alignment.yes_no import YesNoVqa
from promptecho.benchmarks.oneig_text.rules import (
    match_texts,
    max_new_tokens,
    normalize,
    reference,
    set_language,
    text_score,
)
from promptecho.benchmarks.perception import PerceptionFailure
from promptecho.benchmarks.registry import load_layout, load_scorer
from promptecho.benchmarks.scoring import ImageFolder, ScoringOptions
from promptecho.benchmarks.textocr.gallery import poster_prompts
from promptecho.benchmarks.textocr.prompts import read_prompts
from promptecho.cli import app
from promptecho.config import load_experiment, slices
from promptecho.config.benchmarks import BENCHMARKS
from promptecho.config.judges import JudgeSection
from promptecho.errors import ConfigError, DataError, ModelError
from promptecho.files import read_jsonl
from promptecho.scores import read_scores
from promptecho.shapes.grammar import corrupt, parse, scene_of
from promptecho.shapes.render import render
from promptecho.vlm import load_vlm
from promptecho.vlm.inputs import batch_inputs, render_prompt

TEXT = st.text(alphabet="abB é'-.山水 \n", min_size=1, max_size=20)


@given(st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 6), max_size=2)), min_size=1, max_size=6))
def test_a_question_counts_where_it_and_its_parents_are_answered_yes(drawn):
    questions = [DpgQuestion(n, "?", tuple(parents), "", n - 1) for n, (_, parents) in enumerate(drawn, 1)]
    answered = {n: float(yes) for n, (yes, _) in enumerate(drawn, 1)}
    for question, value in zip(questions, counted(questions, answered), strict=True):
        needed = [question.id, *question.parents]
        assert value == min(answered.get(n, 1.0) for n in needed)  # those of parents do not matter, nor who is absent


@given(st.lists(TEXT, min_size=1, max_size=3), TEXT, st.sampled_from(["en", "zh"]))
def test_what_is_required_scores_one_and_all_else_less(texts, read, language):
    required = reference(texts, "fixed")
    if not normalize(required):
        return
    assert text_score([match_texts(required, required)], language) == 1
    match = match_texts(required, read)
    assert 0 <= match.matched <= match.required and 0 <= text_score([match], language) <= 1
    assert (
        match.exact == (normalize(required) == normalize(read)) == (text_score([match], language) == 1 and match.exact)
    )
    assert normalize(normalize(read)) == normalize(read)


def test_line_breaks_are_a_letter_officially_and_answers_may_be_longer_for_long_texts():
    texts = ["one\ntwo"]
    assert match_texts(reference(texts, "official"), "one two").edits == 1  # "onentwo"
    assert match_texts(reference(texts, "fixed"), "one two").exact
    assert (max_new_tokens("w " * 60), max_new_tokens("w " * 61)) == (128, 256)
    assert set_language([["好"], ["OPEN"], ["开"]]) == "zh" and set_language([["好"], ["OPEN"]]) == "en"
    assert class_of("anime_007") == "anime" and class_of("7") == "all"


def published(folder: Path) -> None:
    """Made-up files in the published formats: two prompts of each class, and two texts."""
    (folder / "scripts/alignment/Q_D").mkdir(parents=True)
    (folder / "scripts/text").mkdir()
    for end, name, column in (("", "OneIG-Bench.csv", "prompt_en"), ("_zh", "OneIG-Bench-ZH.csv", "prompt_cn")):
        rows = [
            {"category": category, "id": f"{n:03}", column: f'{category}{end} "{n}",\nso', "class": "slide"}
            for category in (*prompt_files.CLASSES, "Text_Rendering")
            for n in range(2)
        ]
        with open(folder / name, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        for category, (kind, _) in prompt_files.CLASSES.items():
            asked_about = {
                "question": json.dumps({"1": "Is it?", "2": "Is it red?"}),
                "dependency": '{"1": [0], "2": [1]}',
            }
            path = folder / f"scripts/alignment/Q_D/{kind}{end}.json"
            if category != "Multilingualism" or end:
                path.write_text(json.dumps({"000": asked_about, "001": asked_about}))
        with open(folder / f"scripts/text/text_content{end}.csv", "w", newline="", encoding="utf-8") as file:
            lines = [[n, f"{n:03}", f"Write {n}.", str([f"It's {n}", "two\nlines"])] for n in range(2)]
            csv.writer(file).writerows([["", "id", column, "text_content"], *lines])


@pytest.fixture
def two_each(monkeypatch):
    two = {category: (name, 2) for category, (name, _) in prompt_files.CLASSES.items()}
    monkeypatch.setattr(prompt_files, "CLASSES", two)
    monkeypatch.setattr(prompt_files, "TEXTS", 2)


def test_published_files_become_prompt_sets(tmp_path, two_each):
    published(tmp_path)
    prompt_files.pack_set(tmp_path)
    rows = read_rows(tmp_path / "alignment.csv")
    prompts = prompts_of(rows)
    assert [prompt.item_id for prompt in prompts][::2] == ["anime_000", "human_000", "object_000"]
    assert prompts[1].text == 'Anime_Stylization "1",\nso'
    assert [question.parents for question in items_of(rows, "fixed")["human_001"]] == [(0,), (1,)]
    assert len(prompts_of(read_rows(tmp_path / "alignment_zh.csv"))) == 8
    first, second = read_prompts(tmp_path / "text_zh.jsonl")
    assert (first.text, second.data_id, second.category) == (("It's 0", "two\nlines"), "001", "slide")
    assert reference(first.text, "official") == str(["It's 0", "two\nlines"])


def test_a_published_file_that_is_not_what_it_was_is_named(tmp_path, two_each, monkeypatch):
    published(tmp_path)
    path = tmp_path / "scripts/alignment/Q_D/human.json"
    whole = path.read_text()
    for text, told in (
        ("{}", "questions about 0 prompts, not 2"),
        (whole.replace("001", "007"), "007: no prompt of Portrait has this id"),
        (whole.replace('\\"1\\": \\"Is it?\\", ', ""), "000: its questions are not numbered from 1"),
        (whole.replace('{\\"1\\": [0]', "{"), "000: dependency is no JSON object"),
        (whole.replace('\\"2\\": [1]', '\\"2\\": 1'), "000: dependency of question 2 is no list of numbers"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=told) as caught:
            prompt_files.pack_set(tmp_path)
        assert str(path) in str(caught.value) and "fetch it again" in str(caught.value)
    path.write_text(whole)
    monkeypatch.setattr(prompt_files, "TEXTS", 3)
    with pytest.raises(DataError, match=r"text_content.csv: 2 prompts, not 3"):
        prompt_files.pack_set(tmp_path)


def test_the_model_is_asked_as_in_the_published_code(monkeypatch):
    monkeypatch.setattr("promptecho.benchmarks.oneig_alignment.yes_no.MAX_NEW_TOKENS", 6)
    vqa, vlm, picture = YesNoVqa(str(shared_folder()), "cpu"), load_vlm(shared_folder()), image(3, (48, 32))
    questions = [f"Is it {word}?" for word in ("red", "blue and small", "a star", "left", "a picture of two shapes")]
    found = vqa.answers(picture, questions)
    assert asked("Is it red?") == "Is it red?. Please answer 'Yes' or 'No' only."
    for question, answer in zip(questions, found, strict=True):
        inputs = batch_inputs(vlm, [as_jpeg(picture)], [render_prompt(vlm, asked(question))], padding_side="left")
        ids = vlm.model.generate(**inputs, max_new_tokens=6, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert answer == vlm.tokenizer.decode(ids, skip_special_tokens=True).strip()
    with pytest.raises(PerceptionFailure, match="exceed its context of 512"):
        vqa.answers(picture, ["Is it? " * 400])


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(ModelError, match="'yolo' is unknown; known backends: gallery, judge, oracle, vlm"):
        load_scorer("oneig_alignment", ScoringOptions("yolo"))
    with pytest.raises(ConfigError, match="only 'official'"):
        load_scorer("oneig_alignment", ScoringOptions("oracle", mode="fixed"))
    with pytest.raises(ConfigError, match="OneIG-Bench's text has official and fixed"):
        load_scorer("oneig_text", ScoringOptions("gallery", mode="loose"))
    with pytest.raises(ModelError, match="known backends: gallery, rapidocr, vlm"):
        load_scorer("oneig_text", ScoringOptions("yolo"))


def test_scores_are_made_again_when_shared_code_changes(monkeypatch):
    config = load_experiment(Path(__file__).parents[2] / "config/experiments/gallery.yaml")
    entry = config.benchmarks["posters"].model_copy(update={"scorer": "oneig_text"})
    config = config.model_copy(update={"benchmarks": {"posters": entry}})
    named = []
    monkeypatch.setattr(slices, "code_digest", lambda *names, leave_out: named.extend(names))
    slices.slice_value(config, "score", benchmark="posters")
    assert {"benchmarks/oneig_text", "benchmarks/textocr", "benchmarks/longtext"} <= set(named)


def test_tables_are_made_again_when_code_changes_that_they_are_built_by():
    """Of every benchmark, the modules of others that its table's module imports, and theirs outside of benchmarks."""
    root = Path(slices.__file__).parents[1]
    for name in BENCHMARKS.built_in:
        text = (root / f"benchmarks/{name}/table.py").read_text()
        imported = {Path(*module.split(".")) for module in re.findall(r"^from promptecho\.(\S+) import", text, re.M)}
        counted = {Path(one).with_suffix("") for one in (*slices.TABLES_CODE, *slices.folders_of({name}))}
        missed = {str(one) for one in imported if not {one, *one.parents} & counted}
        assert missed <= {"errors"}, name


def scored(folder: Path, benchmark: str, backend: str, run: str, step: int, *more) -> None:
    words = ["score", "--benchmark", benchmark, "--backend", backend, "--images", folder, "--experiment", "e", *more]
    words += ["--run", run, "--step", step, "--out", folder.parent / f"e/scores/{benchmark}/{run}/{step}.json"]
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == 0, done.output


def tabled(folder: Path, benchmark: str) -> list[dict[str, str]]:
    words = ["tables", "--table", benchmark, "--scores", folder / "e", "--out", folder, "--max-failures", 0.2]
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == 0, done.output
    return list(csv.DictReader((folder / f"{benchmark}.csv").read_text().splitlines()))


def test_alignment_from_images_to_a_table(tmp_path):
    prompts = tmp_path / "p.jsonl"
    write_dpg_questions(2, 3, prompts)
    for run, step, wrong in (("base", 0, 6), ("echo-s1", 4, 1)):
        rng, layout = np.random.default_rng(5), load_layout("dpg", prompts, tmp_path / run, 1)
        for p, text in enumerate(layout.texts):
            claim = parse(text) if p >= wrong else corrupt(parse(text), rng)
            layout.image_path(p, 0).parent.mkdir(parents=True)
            picture = render(scene_of(claim, rng), rng)
            if (run, p) == ("base", 7):  # black: officially it stands for an image that was not made
                picture = Image.new("RGB", picture.size)
            picture.save(layout.image_path(p, 0))
        layout.describe(layout.chosen)
        scored(tmp_path / run, "oneig_alignment", "oracle", run, step, "--prompts", prompts, "--images-per-prompt", 1)
    base = read_scores(tmp_path / "e/scores/oneig_alignment/base/0.json")
    raw = read_jsonl(tmp_path / "e/scores/oneig_alignment/base/0.raw.jsonl")
    assert (base.provenance.n, base.provenance.failures) == (8, 1)
    assert raw[7]["reason"] == "the image is black throughout" and raw[6]["score"] == 1
    shares = [sum(one["counted"] for one in row["questions"]) / len(row["questions"]) for row in raw[:7]]
    assert base.summary["overall"] == pytest.approx(sum(shares) / 7)
    first, second = tabled(tmp_path, "oneig_alignment")
    assert float(second["overall"]) > float(first["overall"]) and second["pair"] == "100.0"
    assert float(second["delta_low"]) < float(second["delta"]) and first["failures"] == "1"


def test_text_from_posters_to_a_table(tmp_path):
    rows = poster_prompts(2, seed=4)
    for run, step, wrong in (("base", 0, 6), ("echo-s1", 4, 2)):
        write_posters(tmp_path / run, rows, wrong)
        scored(tmp_path / run, "oneig_text", "gallery", run, step, "--prompts", tmp_path / "prompts.jsonl")
    after = read_scores(tmp_path / "e/scores/oneig_text/echo-s1/4.json")
    raw = read_jsonl(tmp_path / "e/scores/oneig_text/echo-s1/4.raw.jsonl")
    edits = sum(row["edits"] for row in raw) / 12
    assert after.summary["completion"] == 8 / 12 and after.summary["word_accuracy"] == 20 / 24
    assert after.summary["text_score"] == pytest.approx(1 - edits * (4 / 12) * (4 / 24) / 100)
    assert after.summary["edits"] == pytest.approx(edits / 100) and after.summary["overall"] < 1
    first, second = tabled(tmp_path, "oneig_text")
    assert [float(row["completion"]) for row in (first, second)] == [0, pytest.approx(100 * 8 / 12)]
    assert float(second["completion_delta"]) == pytest.approx(100 * 8 / 12) and float(second["delta"]) > 0


def test_a_judge_reads_once_for_both_benchmarks(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    rows = [
        {"data_id": "0", "prompt": "A sign.", "text": ["OPEN all"]},
        {"data_id": "1", "prompt": "B.", "text": ["x"]},
    ]
    folder = write_folder(tmp_path, rows, [draw("OPEN"), draw("SALE")])
    with serving(answer=lambda text: "OPEN\nall addCriterion") as server:
        settings = JudgeSection(kind="openai", model="reader", endpoint=server.endpoint("openai"))
        options = ScoringOptions("judge", judge=settings, answers=tmp_path / "answers")
        text = load_scorer("oneig_text", options).score(folder)
        words = load_scorer("longtext", options).score(folder)
        assert len(server.log) == 2
    assert [item.outcome for item in text.items] == [1.0, pytest.approx(1 - 8 / 100)]
    assert text.summary["completion"] == 0.5 and text.parts[0].outcome == 1.0 and words.summary["overall"] == 2 / 3


def test_with_a_limit_the_generated_images_are_judged_and_black_ones_not_paid_for(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    prompts = tmp_path / "p.jsonl"
    write_dpg_questions(1, 3, prompts)
    first, *others = read_jsonl(prompts)
    one_question = [first, *(row for row in others if row["item_id"] != first["item_id"])]
    prompts.write_text("".join(f"{json.dumps(row)}\n" for row in one_question))
    layout = load_layout("dpg", prompts, tmp_path / "images", 1, 2)
    assert 0 not in layout.chosen
    for place, color in zip(layout.chosen, ("red", "black"), strict=True):
        layout.image_path(place, 0).parent.mkdir(parents=True)
        Image.new("RGB", (32, 32), color).save(layout.image_path(place, 0))
    layout.describe(layout.chosen)
    folder = ImageFolder(tmp_path / "images", prompts, 1, limit=2)
    with serving(answer=lambda text: "yes") as server:
        settings = JudgeSection(kind="openai", model="reader", endpoint=server.endpoint("openai"))
        scorer = load_scorer("oneig_alignment", ScoringOptions("judge", judge=settings, answers=tmp_path / "answers"))
        calls = scorer.estimate(folder).calls
        found = scorer.score(folder)
        asked = sum(row["item_id"] == layout.ids[layout.chosen[0]] for row in one_question)
        assert len(server.log) == calls == asked
    assert [item.outcome for item in found.items] == [1.0, None]
    assert found.raw[1]["reason"] == "the image is black throughout"
