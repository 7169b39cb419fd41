"""TIIF-Bench by a judge behind a real HTTP server on loopback, which sees what a model would: image and text."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from judge_server import KEY, JudgeServer, serving
from PIL import Image

from promptecho.benchmarks.registry import load_scorer
from promptecho.benchmarks.scoring import ImageFolder, ScoringOptions
from promptecho.benchmarks.tiif.judge import WORDINGS, load_templates, question_of, wording_of
from promptecho.benchmarks.tiif.layout import TiifLayout, list_images
from promptecho.benchmarks.tiif.oracle import ORACLE
from promptecho.benchmarks.tiif.scorer import items_of, summary_of
from promptecho.benchmarks.tiif.shapes import tiif_prompts
from promptecho.config.judges import JudgeSection
from promptecho.errors import ConfigError, DataError, PromptEchoError
from promptecho.files import write_jsonl
from promptecho.shapes.grammar import parse, scene_of
from promptecho.shapes.oracle import detect
from promptecho.shapes.render import render

Reply = Callable[[list[str], Image.Image], str]
KINDS = ("shape+color", "2d_spatial_relation", "numeracy")


def honest(questions: list[str], image: Image.Image) -> str:
    objects = detect(image)
    return "\n".join(f"{ORACLE.answer(question, objects).capitalize()}, as can be seen." for question in questions)


@contextmanager
def judging(reply: Reply) -> Iterator[JudgeServer]:
    """A server that answers the questions in a text from the image that came with it; asked one at a time."""

    def answer_last(text: str) -> str:
        ((_, data),) = server.log[-1]["images"]
        return reply([line for line in text.split("\n") if line.endswith("?")], Image.open(io.BytesIO(data)))

    with serving(answer=answer_last) as server:
        yield server


@pytest.fixture
def folder(tmp_path) -> ImageFolder:
    """Three attributes with three prompts each; each short image shows its prompt, each long one the next prompt's."""
    rows = [row for row in tiif_prompts(3, 0) if row["type"] in KINDS]
    write_jsonl(tmp_path / "prompts.jsonl", rows)
    layout = TiifLayout(tmp_path / "prompts.jsonl", tmp_path / "images", 1)
    for p in range(len(layout.ids)):
        shown = p if p % 2 == 0 else (p + 2) % len(layout.ids)
        rng = np.random.default_rng(p)
        path = layout.image_path(p, 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        render(scene_of(parse(layout.texts[shown]), rng), rng).save(path)
    layout.describe(range(len(layout.ids)))
    return ImageFolder(tmp_path / "images", tmp_path / "prompts.jsonl", 1)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def options(server: JudgeServer, tmp_path, mode: str = "official", seed: int = 0, **settings) -> ScoringOptions:
    endpoint = server.endpoint("openai")
    judge = JudgeSection(kind="openai", model="oracle", endpoint=endpoint, concurrency=1, **settings)
    return ScoringOptions("judge", mode, judge=judge, answers=tmp_path / "answers", seed=seed)


# --- questions -----------------------------------------------------------------------------------------------------


def test_all_questions_of_an_image_are_one_call(folder):
    entries, templates = list_images(folder.root), load_templates(None)
    questions = [question_of(entry, templates, 0, "official") for entry in entries]
    assert len(questions) == 18
    for entry, question in zip(entries, questions, strict=True):
        lines = question.text.split("\n")
        asked = [line for line in lines if line in entry.prompt.questions]
        assert asked == entry.prompt.questions
        assert question.images == (entry.path,)
        assert question.system and question.schema is None and question.temperature == 1.0
        assert question.parse("yes\n" * len(asked)) == ["yes"] * len(asked)
        with pytest.raises(ValueError, match="questions were asked"):
            question.parse("yes\n" * (len(asked) + 1))
    assert question_of(entries[0], templates, 0, "fixed").temperature == 0.0
    assert len({question.id for question in questions}) == 18


def test_the_wording_is_drawn_from_the_seed_and_the_image():
    images = [f"{length}/{kind}/{k}" for length in ("short", "long") for kind in KINDS for k in range(100)]
    drawn = [wording_of(3, image) for image in images]
    assert drawn == [wording_of(3, image) for image in images]
    assert drawn != [wording_of(4, image) for image in images]
    assert all(150 < count < 250 for count in Counter(drawn).values()) and set(drawn) == {0, 1, 2}


def test_wordings_are_three_different_texts_that_can_be_replaced(folder, tmp_path):
    templates = load_templates(None)
    assert len({template.digest for template in templates.wordings}) == len(WORDINGS) == 3
    own = tmp_path / "own"
    (own / "tiif").mkdir(parents=True)
    for name in WORDINGS:
        (own / "tiif" / f"{name}.txt").write_text("Answer:\n{questions}")
    entry = list_images(folder.root)[0]
    mine, ours = (question_of(entry, load_templates(where), 0, "official") for where in (own, None))
    assert mine.text == "Answer:\n" + "\n".join(entry.prompt.questions)
    assert mine.template != ours.template and mine.system == ours.system
    (own / "tiif" / "questions_1.txt").write_text("Answer.")
    (own / "tiif" / "questions_2.txt").write_text("Answer.")
    (own / "tiif" / "questions_3.txt").write_text("Answer.")
    with pytest.raises(DataError, match="questions"):
        question_of(entry, load_templates(own), 0, "official")


# --- scores --------------------------------------------------------------------------------------------------------


def test_an_honest_judge_and_the_oracle_agree(folder, tmp_path):
    oracle = load_scorer("tiif", ScoringOptions("oracle")).score(folder)
    with judging(honest) as server:
        scorer = load_scorer("tiif", options(server, tmp_path))
        before = scorer.estimate(folder)
        scored = scorer.score(folder)
        after = scorer.estimate(folder)
        again = load_scorer("tiif", options(server, tmp_path)).score(folder)
    assert scored.items == oracle.items and scored.summary == oracle.summary
    assert 0 < scored.summary["long.overall"] < scored.summary["short.overall"] == 1
    assert scorer.judge_model == "oracle"
    assert len(server.log) == 18 and {request["temperature"] for request in server.log} == {1.0}
    assert (before.calls, before.recorded, after.calls, after.recorded) == (18, 0, 0, 18)
    assert (again.items, again.raw) == (scored.items, scored.raw)
    assert {record["template"] for record in scored.raw} <= set(WORDINGS)
    raw = json.loads(json.dumps(scored.raw))
    items = [item for record in raw for item in items_of(record, "official")]
    assert summary_of(items, "official") == scored.summary
    assert all(record["reply"] and record["seed"] == 0 for record in raw)


def test_a_reply_with_a_line_too_few_is_asked_again(folder, tmp_path):
    seen: Counter[bytes] = Counter()

    def careless(questions: list[str], image: Image.Image) -> str:
        seen[image.tobytes()] += 1
        return honest(questions[:-1] if seen[image.tobytes()] == 1 else questions, image)

    with judging(careless) as server:
        scored = load_scorer("tiif", options(server, tmp_path, mode="fixed")).score(folder)
    assert len(server.log) == 36 and {request["temperature"] for request in server.log} == {0.0}
    assert not any(item.failed for item in scored.items)
    assert scored.summary["short.overall"] == 1


def test_a_judge_that_never_answers_one_image_fails_its_questions(folder, tmp_path):
    def silent_about_numbers(questions: list[str], image: Image.Image) -> str:
        third = any(question == "Is the number of squares 2?" for question in questions)
        return "I would rather not." if third else honest(questions, image)

    rows = [row for row in tiif_prompts(3, 0) if row["type"] in KINDS]
    rows[-1] |= {
        "questions": ["Is the number of squares 2?", "Is there a star in the image?"],
        "answers": ["yes", "no"],
    }
    rows[-1] |= {"short_description": "a photo of two squares", "long_description": "The image shows two squares."}
    assert rows[-1]["type"] == "numeracy"
    write_jsonl(folder.prompts, rows)
    (folder.root / "metadata.jsonl").unlink()
    with judging(silent_about_numbers) as server:
        asked = options(server, tmp_path, max_attempts=2, max_failed_share=0.2)
        scored = load_scorer("tiif", asked).score(folder)
        count = len(server.log)
        with pytest.raises(PromptEchoError, match="2 of .* failed"):
            load_scorer("tiif", options(server, tmp_path, max_attempts=2)).score(folder)
        assert len(server.log) == count
    failed = [item for item in scored.items if item.failed]
    assert {(item.prompt_id, item.image_index) for item in failed} == {("numeracy/2", k) for k in range(4)}
    assert all(item.outcome is None for item in failed)
    (record,) = [r for r in scored.raw if r["failed"] and r["length"] == "short"]
    assert record["reply"] == "I would rather not." and "questions were asked" in record["reason"]
    assert scored.summary["short.reas"] == 1.0


def test_a_judge_has_to_be_named(tmp_path):
    with pytest.raises(ConfigError, match="backend judge: which one"):
        load_scorer("tiif", ScoringOptions("judge"))
