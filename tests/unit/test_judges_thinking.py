"""Judges that think, and what a judge's identity is: cut replies, the `request` mapping, addresses, versions."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from judge_cases import QUICK, VARIABLES, Verdict, ended, questions, section, write_png
from judge_cases import environment as environment
from judge_server import serving
from pydantic import ValidationError
from test_judges_wire import load, payload

from promptecho.judges.ask import ask_all, estimate
from promptecho.judges.base import Question
from promptecho.judges.errors import JudgeError
from promptecho.judges.keys import ImageFacts, former_key, record_key
from promptecho.judges.names import judge_name
from promptecho.judges.prepare import Preparer
from promptecho.provenance import without_address

KINDS = pytest.mark.parametrize("kind", ["gemini", "openai"])
COUNT = 150


@KINDS
def test_thinking_that_uses_up_the_limit_is_told_and_asked_again_only_with_more(kind, tmp_path):
    """150 questions, on 9 of which thinking takes all of 64 tokens; with more they are answered."""
    asked, hard = questions(COUNT, tmp_path), {f"q{index}" for index in range(0, COUNT, 17)}

    def plan(text, _):
        return "thinking" if text in hard and server.log[-1]["limit"] < 100 else None

    with serving(plan=plan) as server:
        settings = section(kind, server, max_failed_share=0.1, max_attempts=6, concurrency=1)
        answers = ask_all(settings, asked, tmp_path / "a", backoff=QUICK)
        failed = [answer for answer in answers if answer.failure]
        assert len(failed) == len(hard) and {answer.kind for answer in failed} == {"cut"}
        finish = {"gemini": "MAX_TOKENS", "openai": "length"}[kind]
        assert failed[0].failure == (
            f"cut: at max_output_tokens 64 (finish reason {finish}, 61 of them thoughts); raise max_output_tokens to "
            "have it asked again"
        )
        assert len(server.log) == COUNT, "not asked again unchanged"
        row = next(row for row in ended(tmp_path / "a") if row["status"] == "cut")
        assert (row["finish"], row["thinking_tokens"], row["limit"]) == (finish, 61, 64)
        ask_all(settings, asked, tmp_path / "a", backoff=QUICK)
        assert len(server.log) == COUNT
        raised = settings.model_copy(update={"max_output_tokens": 128})
        assert estimate(raised, asked, tmp_path / "a").calls == len(hard)
        answers = ask_all(raised, asked, tmp_path / "a", backoff=QUICK)
        assert all(answer.value for answer in answers)
        assert sorted(server.texts()[COUNT:]) == sorted(hard), "the others are not paid for twice"
        lowered = ask_all(settings, asked, tmp_path / "a", backoff=QUICK)
        assert all(answer.cached and answer.value for answer in lowered)


def test_a_limit_may_be_raised_in_request_too(tmp_path):
    asked = questions(2, tmp_path)

    def plan(text, _):
        return "cut text" if server.log[-1]["limit"] < 100 else None

    with serving(plan=plan) as server:
        settings = section("openai", server, max_failed_share=1.0, concurrency=1)
        assert {answer.kind for answer in ask_all(settings, asked, tmp_path / "a", backoff=QUICK)} == {"cut"}
        raised = section("openai", server, request={"max_tokens": None, "max_completion_tokens": 500})
        assert all(answer.value for answer in ask_all(raised, asked, tmp_path / "a", backoff=QUICK))
        assert server.log[-1]["body"]["max_completion_tokens"] == 500 and "max_tokens" not in server.log[-1]["body"]


def test_an_empty_candidate_list_is_tried_again_once(tmp_path):
    plan = {"q0": 1, "q1": 9}
    with serving(plan=lambda text, nth: "no candidate" if nth < plan[text] else None) as server:
        settings = section("gemini", server, max_failed_share=0.5)
        answers = ask_all(settings, questions(2, tmp_path), tmp_path / "a", backoff=QUICK)
        assert sorted(server.texts()) == ["q0", "q0", "q1", "q1"]
    assert answers[0].value == "re q0" and answers[1].failure == "refused: no candidate, 2 times"


def test_request_is_sent_as_it_is():
    beside = {"reasoning_effort": "low", "extra_body": {"enable_thinking": False}, "temperature": None, "seed": 3}
    with serving() as server:
        load("openai", server, request=beside).ask(payload())
        gemini = {
            "thinkingConfig": {"thinkingBudget": 128}, "top_k": 4, "temperature": None,
            "safety_settings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
        }  # fmt: skip
        load("gemini", server, request=gemini).ask(payload())
    sent = server.log[0]["body"]
    assert sent["reasoning_effort"] == "low" and sent["enable_thinking"] is False and sent["seed"] == 3
    assert "temperature" not in sent and "extra_body" not in sent and sent["max_tokens"] == 64
    config = server.log[1]["body"]["generationConfig"]
    # As protobuf's JSON, the API takes both spellings.
    assert list(config["thinkingConfig"].values()) == [128] and config["topK"] == 4 and "temperature" not in config
    assert config["maxOutputTokens"] == 64
    assert server.log[1]["body"]["safetySettings"][0]["threshold"] == "BLOCK_NONE"


@pytest.mark.parametrize(
    ("kind", "request_", "told"),
    [
        ("openai", {"messages": []}, "request.messages: not to be set here"),
        ("openai", {"extra_body": {"stream": True}}, "request.stream: not to be set here"),
        ("openai", {"extra_headers": {"api-key": "x"}}, "request.extra_headers"),
        ("openai", {"extra_body": 3}, "request.extra_body: expected a mapping"),
        ("openai", {"top_p": float("nan")}, "no JSON"), ("openai", {"top_p": {1, 2}}, "request"),
        ("gemini", {"httpOptions": {}}, "request.httpOptions"), ("local", {"seed": 1}, "nor request"),
    ],
)  # fmt: skip
def test_what_request_cannot_hold(kind, request_, told):
    with pytest.raises(ValidationError, match=told):
        section(kind, request=request_)


def test_a_misspelt_field_of_gemini_is_told():
    with pytest.raises(JudgeError, match="request.thinking_confg: .*GenerateContentConfig"):
        load("gemini", None, request={"thinking_confg": {}})


def test_azure_takes_a_version_and_a_key_of_its_own(monkeypatch):
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key-0123456789")
    with serving() as server:
        endpoint = f"{server.url}/openai/deployments/judge?api-version=2024-10-21"
        load("openai", None, endpoint=endpoint).ask(payload())
    [sent] = server.log
    assert sent["path"] == "/openai/deployments/judge/chat/completions?api-version=2024-10-21"
    assert sent["headers"]["api-key"] == "azure-key-0123456789" and "authorization" not in sent["headers"]
    assert sent["body"]["max_completion_tokens"] == 64


@KINDS
def test_a_server_that_moves_is_the_same_judge(kind, tmp_path, monkeypatch):
    asked = questions(COUNT, tmp_path)
    for half in (asked[:70], asked):
        with serving() as server:
            answers = ask_all(section(kind, server), half, tmp_path / "a", backoff=QUICK)
            assert len(server.log) == {70: 70, COUNT: COUNT - 70}[len(half)]
    assert all(answer.value for answer in answers)
    monkeypatch.delenv(VARIABLES[kind])
    gone = section(kind, endpoint="http://nowhere.invalid/v1")
    assert all(answer.cached for answer in ask_all(gone, asked, tmp_path / "a"))


def as_before(folder, endpoint, limit, settings, asked):
    """Make the journals of a folder such as earlier versions wrote: names and keys with an address, no limit."""
    preparer = Preparer(settings, settings.model)
    keys = {}
    for one in asked:
        facts = preparer.prepare(one).images
        keys[record_key(settings, settings.model, one, facts)] = former_key(
            settings, settings.model, one, facts, (endpoint, limit)
        )
    host = endpoint.split("/")[2]
    for path in folder.glob("*.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            line |= {"key": keys[line["key"]], "judge": f"{settings.model}@{host}"}
            for name in ("limit", "finish", "thinking_tokens", "order"):
                line.pop(name, None)
            line["status"] = {"cut": "unparsable"}.get(line["status"], line["status"])
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_journals_of_earlier_versions_are_read_wherever_they_were_asked(tmp_path):
    asked = questions(6, tmp_path)
    with serving(plan=lambda text, _: "thinking" if text == "q5" and server.log[-1]["limit"] < 100 else None) as server:
        settings = section("openai", server, max_failed_share=1.0, concurrency=1, max_attempts=1)
        ask_all(settings, asked, tmp_path / "a", backoff=QUICK)
        old = server.endpoint("openai")
        as_before(tmp_path / "a", old, 64, settings, asked)
    with serving() as server:
        moved = section("openai", server, max_failed_share=1.0, max_output_tokens=64, budget_usd=100.0,
                        usd_per_million_input_tokens=1.0, usd_per_million_output_tokens=1.0)  # fmt: skip
        answers = ask_all(moved, asked, tmp_path / "a", backoff=QUICK)
        assert [answer.value for answer in answers[:5]] == [f"re q{index}" for index in range(5)]
        assert all(answer.cached for answer in answers[:5])
        more = moved.model_copy(update={"max_output_tokens": 4096})
        answers = ask_all(more, asked, tmp_path / "a", backoff=QUICK)
        assert answers[5].value == "re q5" and sorted(set(server.texts())) == ["q5"]


def test_keys_of_earlier_versions_are_what_they_were():
    """A fixed one, so that no change here makes old answers unfindable."""
    question = Question(
        "id", "What is it?", (), str, system="Look.", schema=Verdict, template="t1", temperature=0.3, repeat=1
    )
    settings = section("openai", model="m", image_format="jpeg", max_output_tokens=4096)
    key = former_key(settings, "m", question, (ImageFacts("0" * 64, 1, 1),), ("http://node7:8000/v1", 64))
    assert key == "4294e9d87cafd5c3386566c5bd96a6af7d71864c409eb442a8febebe1ba43eb5"
    now = record_key(settings, "m", question, (ImageFacts("0" * 64, 1, 1),))
    assert now == "93b5b9d0852f80ced9d10097f520a80a0516393398efbcc074bc208d666c6c05"


def test_images_have_the_authors_format_and_answers_of_before_are_kept(tmp_path):
    """Earlier versions sent png unless told otherwise, and recorded no format; png on purpose is another question."""
    asked = [replace(one, order="official", image_format="jpeg") for one in questions(4, tmp_path)]
    with serving() as server:
        settings = section("openai", server)
        as_png = settings.model_copy(update={"image_format": "png"})
        ask_all(as_png, asked[:2], tmp_path / "a")
        [journal] = (tmp_path / "a").glob("*.jsonl")
        lines = journal.read_text().splitlines()
        assert all('"format":"png"' in line for line in lines)
        journal.write_text("".join(line.replace(',"format":"png"', "") + "\n" for line in lines))
        answers = ask_all(settings, asked[:3], tmp_path / "a")
        assert [answer.cached for answer in answers] == [True, True, False]
        assert [answer.message for answer in answers] == ["official, images as png"] * 2 + ["official"]
        ask_all(as_png, asked, tmp_path / "a")
        ask_all(settings, asked, tmp_path / "a")
        assert [sent["images"][0][0].removeprefix("image/") for sent in server.log] == ["png"] * 2 + ["jpeg"] + [
            "png", "png", "jpeg"
        ]  # fmt: skip
        explicit = settings.model_copy(update={"image_format": "jpeg"})
        assert all(answer.cached for answer in ask_all(explicit, asked[2:], tmp_path / "a")), "quality 95 is the same"


def test_the_spelling_of_a_part_is_no_part_of_a_key():
    question, pairs = Question("id", "q", (), str), [
        ("gemini", {"thinkingConfig": {"thinkingBudget": 9}}, {"thinking_config": {"thinking_budget": 9}}),
        ("openai", {"enable_thinking": False}, {"extra_body": {"enable_thinking": False}}),
        ("openai", {"max_tokens": 9}, {"max_completion_tokens": 99}), ("gemini", {"maxOutputTokens": 9}, {}),
    ]  # fmt: skip
    for kind, first, second in pairs:
        keys = {record_key(section(kind, request=one), "m", question, ()) for one in (first, second)}
        assert len(keys) == 1, kind


def test_an_image_of_many_questions_is_encoded_once(tmp_path):
    path = write_png(tmp_path, 1)
    preparer = Preparer(section("openai", image_format="jpeg"), "m")
    asked = [preparer.prepare(Question(f"q{index}", f"q{index}", (path,), str)) for index in range(5)]
    sent = [preparer.payload(one, 1).images[0] for one in asked]
    assert len({id(data) for _, data in sent}) == 1 and sent[0][0] == "image/jpeg"


@KINDS
def test_the_authors_order_of_a_message(kind):
    with serving() as server:
        load(kind, server).ask(payload(order="official", labels=("**A:**", "**B:**")))
        load(kind, server).ask(payload(order="official"))
        load(kind, server).ask(payload())
    body = [sent["body"] for sent in server.log]
    parts = [one["contents"][0]["parts"] if kind == "gemini" else one["messages"][-1]["content"] for one in body]
    shown = [[part.get("text", "IMAGE") for part in one] for one in parts]
    assert shown == [["q?", "**A:**", "IMAGE", "**B:**", "IMAGE"], ["q?", "IMAGE", "IMAGE"], ["IMAGE", "IMAGE", "q?"]]


def test_answers_that_were_asked_for_with_images_first_are_kept_for_the_authors_order(tmp_path):
    """Those of earlier versions; what was asked with images first on purpose is another question."""
    plain = questions(6, tmp_path)
    official = [replace(one, order="official", labels=("**A:**",)) for one in plain]
    with serving() as server:
        settings = section("openai", server, max_output_tokens=64)
        ask_all(settings, plain[:3], tmp_path / "a")
        as_before(tmp_path / "a", server.endpoint("openai"), 64, settings, plain[:3])
        answers = ask_all(settings, official, tmp_path / "a")
        assert sorted(server.texts()) == [f"q{index}" for index in range(6)], "three before, three now"
        assert [answer.order for answer in answers] == ["images_first"] * 3 + ["official"] * 3
        ask_all(settings, plain, tmp_path / "a")
        assert len(server.log) == 9
        assert all(answer.cached for answer in ask_all(settings, official, tmp_path / "a"))
        ask_all(settings, plain, tmp_path / "b")
        ask_all(settings, official, tmp_path / "b")
        assert len(server.log) == 9 + 12


def test_the_version_that_answered_is_kept(tmp_path):
    asked = questions(4, tmp_path)
    with serving(version="judge-1.5-002") as server:
        ask_all(section("openai", server), asked[:2], tmp_path / "a")
        server.version = "judge-1.5-003"
        answers = ask_all(section("openai", server), asked, tmp_path / "a")
    assert [answer.model_version for answer in answers] == ["judge-1.5-002"] * 2 + ["judge-1.5-003"] * 2
    assert len(server.log) == 4


def test_names_have_no_address():
    assert judge_name(section("openai", endpoint="http://node7:8000/v1")) == "judge-1.5"
    for name in ("m@127.0.0.1:38909", "m@node7:8000", "m@localhost", "m@api.example.com", "m@[::1]:80"):
        assert without_address(name) == "m"
    for name in ("m", "claude@20240620", "org/m@001", "m@latest"):
        assert without_address(name) == name
