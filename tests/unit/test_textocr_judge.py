"""Text rendering by a judge behind a real HTTP server on loopback, and labels made by one."""

from __future__ import annotations

import json

import pytest
from judge_server import KEY, serving
from pydantic import ValidationError
from textocr_world import draw, write_folder
from typer.testing import CliRunner

from promptecho.benchmarks.registry import load_scorer
from promptecho.benchmarks.scoring import ScoringOptions
from promptecho.benchmarks.templates import load_template
from promptecho.benchmarks.textocr.judge import Verdict
from promptecho.benchmarks.textocr.labels import (
    FIELDS,
    LabelReply,
    canonical_label,
    estimate_labels,
    failed_path,
    read_texts,
    reward_query,
    write_labelled,
    write_labels,
)
from promptecho.benchmarks.textocr.scorer import summary_of
from promptecho.config.judges import JudgeSection
from promptecho.config.models import RewardSection
from promptecho.errors import DataError, PromptEchoError
from promptecho.files import read_jsonl, write_jsonl
from promptecho.json_reply import parse_json
from promptecho.train.data import TrainingPrompt
from promptecho.train.setup import load_labels

ROWS = [
    {"data_id": "right", "prompt": "A sign says <OPEN>.", "text": ["OPEN"], "category": "sign"},
    {"data_id": "wrong", "prompt": "A sign says <SALE>.", "text": ["SALE"], "category": "sign"},
    {"data_id": "none", "prompt": "A wall.", "text": []},
    {"data_id": "untold", "prompt": "A door says <福>."},
]
SHOWN = {"OPEN": "OPEN", "SALE": "SAIE", "": "x", "福": "福"}  # expected -> found


def expected_of(text: str) -> str:
    prompt = text.partition("<prompt>\n")[2].partition("\n</prompt>")[0]
    return prompt.partition("<")[2].partition(">")[0]


def verdict_on(text: str) -> str:
    expected = expected_of(text)
    found = SHOWN[expected]
    answer = {
        "expected_text": expected,
        "found_text": found,
        "reasoning": "I compared.",
        "score": int(expected == found),
    }
    return json.dumps(answer, ensure_ascii=False)


def judge(server, **settings) -> JudgeSection:
    return JudgeSection(kind="openai", model="reader", endpoint=server.endpoint("openai"), concurrency=2, **settings)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path, ROWS, [draw("OPEN"), draw("SAIE"), draw("x"), draw()])


def test_a_judge_scores_strictly_and_no_required_text_counts(folder, tmp_path):
    with serving(answer=verdict_on) as server:
        options = ScoringOptions("judge", judge=judge(server), answers=tmp_path / "answers")
        scorer = load_scorer("textocr", options)
        assert (scorer.estimate(folder).calls, scorer.estimate(folder).recorded) == (4, 0)
        scored = scorer.score(folder)
        assert len(server.log) == 4
        again = load_scorer("textocr", options).score(folder)
        assert len(server.log) == 4 and scorer.estimate(folder).recorded == 4  # all answers are on record
    assert (again.items, again.raw, again.summary) == (scored.items, scored.raw, scored.summary)
    # "none" got the score 0 with an empty expected_text: the rule gives it 1
    assert {item.prompt_id: item.outcome for item in scored.items} == {
        "right": 1.0, "wrong": 0.0, "none": 1.0, "untold": 1.0
    }  # fmt: skip
    assert [item.group for item in scored.items] == ["sign", "sign", "all", "all"]
    assert scored.summary == summary_of(scored.raw) == {"overall": 3 / 4}
    row = scored.raw[1]
    assert (row["expected_text"], row["found_text"], row["score"]) == ("SALE", "SAIE", 0)
    assert json.loads(row["reply"])["score"] == 0 and row["template_digest"] == load_template("textocr", "judge").digest
    assert "reader" in scorer.judge_model
    sent = next(entry for entry in server.log if "SALE" in entry["text"])
    assert sent["images"][0][1] == (folder.root / "00001_00000.png").read_bytes() and sent["temperature"] == 0.0
    assert set(sent["schema"]["properties"]) == {"expected_text", "found_text", "reasoning", "score"}


def test_a_reply_that_is_no_verdict_fails_and_is_no_zero(folder, tmp_path):
    def answer(text: str) -> str:
        return '{"score": 1}' if expected_of(text) == "OPEN" else verdict_on(text)

    with serving(answer=answer) as server:
        settings = judge(server, max_attempts=2, max_failed_share=0.5)
        options = ScoringOptions("judge", judge=settings, answers=tmp_path / "answers")
        scored = load_scorer("textocr", options).score(folder)
    assert [(item.outcome, item.failed) for item in scored.items][0] == (None, True)
    assert "expected_text" in scored.raw[0]["reason"] and scored.raw[0]["reply"] == '{"score": 1}'
    assert scored.summary == {"overall": 2 / 3}


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ("It looks right to me.", "the reply"),
        ('{"expected_text": "a", "found_text": "a", "reasoning": ""}', "score: Field required"),
        ('{"expected_text": "a", "found_text": "a", "reasoning": "", "score": 2}', "score: "),
        ('{"expected_text": "a", "found_text": "a", "reasoning": "", "score": "1"}', "score: "),
        ('{"expected_text": "a", "found_text": "a", "reasoning": "", "score": true}', "score: "),
        ('{"expected_text": null, "found_text": "a", "reasoning": "", "score": 1}', "expected_text: "),
        ('Sure: {"expected_text": "a", "found_text": "a", "reasoning": "", "score": 1}', "the reply"),
    ],
)
def test_only_the_object_that_was_asked_for_is_a_verdict(reply, problem):
    with pytest.raises(ValueError, match=problem) as error:
        parse_json(reply, Verdict)
    assert not isinstance(error.value, ValidationError) and "\n" not in str(error.value)


def test_a_verdict_may_stand_in_a_fence():
    body = '{"expected_text": " ", "found_text": "x", "reasoning": "", "score": 0, "more": 1}'
    for reply in (body, f"```json\n{body}\n```", f" ```\n{body}\n``` "):
        assert parse_json(reply, Verdict).outcome == 1.0


# --- labels --------------------------------------------------------------------------------------------------------

LABEL = '{"main_title": ["新年", "Sale"], "subtitle": [], "selling_points": ["5% \\"off\\""], "other_text": []}'


def label_on(text: str) -> str:
    title = expected_of(text)
    return json.dumps({"reasoning": "r", "other_text": ["", " "], "subtitle": [], "selling_points": ['5% "off"'],
                       "main_title": [title, "Sale "]})  # fmt: skip


def test_the_label_has_one_form():
    fields = {"other_text": [" "], "selling_points": ['5% "off"'], "main_title": [" 新年", "Sale"], "subtitle": []}
    assert canonical_label(fields) == canonical_label(dict(reversed(fields.items())) | {"reasoning": "r"}) == LABEL
    assert list(json.loads(LABEL)) == list(FIELDS)
    assert canonical_label(json.loads(LABEL)) == LABEL
    with pytest.raises(DataError, match="subtitle is missing"):
        canonical_label({"main_title": []})
    # A judge's reply of the same content ends in the same bytes.
    assert canonical_label(parse_json(label_on("<prompt>\n<新年>\n</prompt>"), LabelReply).model_dump()) == LABEL


def test_the_query_asks_for_what_the_label_holds():
    query = reward_query()
    example = query.rpartition("\n")[2]
    assert json.dumps(json.loads(example), ensure_ascii=False) == example  # the form of the labels
    assert list(json.loads(example)) == list(FIELDS)
    for name in ("label", "judge"):
        with pytest.raises(DataError, match="prompt"):
            load_template("textocr", name).fill()


def test_labels_are_written_as_training_reads_them(tmp_path):
    prompts = {"a": "A poster with <新年> on it.", "b/2": "<福>"}
    out, answers = tmp_path / "labels.jsonl", tmp_path / "answers"
    with serving(answer=label_on) as server:
        assert estimate_labels(prompts, judge(server), answers).calls == 2
        made = write_labels(prompts, judge(server), answers, out)
        first = out.read_bytes()
        write_labels(prompts, judge(server), answers, out)
        assert len(server.log) == 2 and out.read_bytes() == first
        assert server.log[0]["images"] == [] and set(server.log[0]["schema"]["properties"]) == {"reasoning", *FIELDS}
    assert (made.written, made.failed, read_jsonl(failed_path(out))) == (2, {}, [])
    assert read_jsonl(out)[0] == {"data_id": "a", "label": LABEL} and "新年" in out.read_text(encoding="utf-8")
    entry = RewardSection(label=str(out), query=reward_query())
    assert load_labels(entry, 0, [TrainingPrompt(name, text) for name, text in prompts.items()])["a"] == LABEL


def test_prompts_without_label_are_listed_and_too_many_write_nothing(tmp_path):
    prompts, out = {name: f"<{name}>" for name in "abcd"}, tmp_path / "labels.jsonl"

    def answer(text: str) -> str:
        return "no" if expected_of(text) == "c" else label_on(text)

    with serving(answer=answer) as server:
        with pytest.raises(PromptEchoError, match="prompt c"):
            write_labels(prompts, judge(server, max_attempts=1), tmp_path / "answers", out)
        assert not out.exists()
        settings = judge(server, max_attempts=1, max_failed_share=0.3)
        made = write_labels(prompts, settings, tmp_path / "answers", out)
    assert made.written == 3 and list(made.failed) == ["c"]
    assert [row["data_id"] for row in read_jsonl(out)] == ["a", "b", "d"]
    assert read_jsonl(failed_path(out))[0]["data_id"] == "c"
    write_labelled(prompts, made, tmp_path / "kept.jsonl")
    assert list(read_texts(tmp_path / "kept.jsonl")) == ["a", "b", "d"]
    with pytest.raises(DataError, match="no prompts to label"):
        write_labels({}, settings, tmp_path / "answers", out)


def test_prompts_to_label_come_from_every_file_that_training_takes(tmp_path):
    from promptecho.captions.store import CaptionRow, CaptionSource, write_captions

    (tmp_path / "p.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    write_jsonl(tmp_path / "c.jsonl", [{"data_id": "a", "caption": "one", "prompt": ""}])
    write_jsonl(tmp_path / "p.jsonl", ROWS)
    row = CaptionRow("i", "three", -1, "stop", "0" * 64)
    write_captions(tmp_path / "c.h5", CaptionSource("v", "r", "q", {}), [row])
    assert read_texts(tmp_path / "p.txt") == {"000001": "one", "000003": "two"}
    assert read_texts(tmp_path / "c.jsonl") == {"a": "one"}
    assert read_texts(tmp_path / "p.jsonl") == {row["data_id"]: row["prompt"] for row in ROWS}
    assert read_texts(tmp_path / "c.h5") == {"i": "three"}
    with pytest.raises(DataError, match="no such file"):
        read_texts(tmp_path / "none.jsonl")
    write_jsonl(tmp_path / "c.jsonl", [{"data_id": "a", "caption": "one", "prompt": "not this"}])
    with pytest.raises(DataError, match="'caption' and 'prompt' differ"):
        read_texts(tmp_path / "c.jsonl")


def test_the_command(tmp_path):
    import typer

    from promptecho.benchmarks.textocr.command import labels

    app = typer.Typer()
    app.command()(labels)
    write_jsonl(tmp_path / "p.jsonl", ROWS[:2])
    with serving(answer=label_on) as server:
        config = tmp_path / "poster.yaml"
        config.write_text(
            "models: {t2i: {path: shapes}, vlm: {path: shapes}}\ncaptions: {prompts: p.jsonl}\n"
            "judges:\n  models:\n"
            f"    reader: {{kind: openai, model: reader, endpoint: '{server.endpoint('openai')}'}}\n"
        )
        options = ["--prompts", tmp_path / "p.jsonl", "--config", config, "--answers", tmp_path / "answers", "--judge"]
        options = [str(option) for option in options]
        run = CliRunner().invoke(app, [*options, "reader", "--estimate", "--json"])
        assert run.exit_code == 0, run.output
        assert json.loads(run.stdout)["calls"] == 2 and not server.log
        run = CliRunner().invoke(app, [*options, "reader", "--out", str(tmp_path / "l.jsonl"), "--json"])
        assert run.exit_code == 0, run.output
        assert json.loads(run.stdout) == {"out": str(tmp_path / "l.jsonl"), "written": 2, "failed": {}}
        kept = ["reader", "--out", str(tmp_path / "l.jsonl"), "--prompts-out", str(tmp_path / "kept.jsonl")]
        assert CliRunner().invoke(app, [*options, *kept]).exit_code == 0
        assert read_texts(tmp_path / "kept.jsonl") == read_texts(tmp_path / "p.jsonl")
    for arguments, message in (
        (["reader"], "give either --out FILE"),
        (["other", "--estimate"], r"judges\.models\.other: no such judge \(known: reader\)"),
    ):
        run = CliRunner().invoke(app, [*options, *arguments])
        with pytest.raises(PromptEchoError, match=message):
            raise run.exception
