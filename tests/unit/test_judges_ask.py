"""Asking many questions: nothing lost, nothing charged twice, nothing above the budget."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from judge_cases import QUICK, VARIABLES, ended, parse, png, questions, rows, section
from judge_cases import environment as environment
from judge_server import BODY_FAULTS, KEY, STATUS_FAULTS, TEXT_FAULTS, TOKENS, serving

from promptecho.errors import DataError
from promptecho.judges.ask import ask_all, estimate
from promptecho.judges.base import Question
from promptecho.judges.errors import JudgeBudgetError, JudgeError
from promptecho.judges.patience import Backoff

KINDS = pytest.mark.parametrize("kind", ["gemini", "openai"])
PRICES = {"usd_per_million_input_tokens": 1000.0, "usd_per_million_output_tokens": 10_000.0}
PRICE = TOKENS[0] * 1e-3 + TOKENS[1] * 1e-2  # of one reply of the server
HERE = Path(__file__).parent


def values(answers):
    return [answer.value for answer in answers]


def expected(count):
    return [f"re q{index}" for index in range(count)]


@KINDS
def test_thirty_percent_faults_lose_nothing_and_charge_nothing_twice(kind, tmp_path, capfd):
    kinds = [*STATUS_FAULTS, *(fault for fault in BODY_FAULTS if fault != "time-out"), *TEXT_FAULTS]

    def plan(text, nth):
        source = random.Random(f"{kind} {text} {nth}")
        return source.choice(kinds) if source.random() < 0.3 else None

    asked = questions(200, tmp_path)
    with serving(plan=plan, echo=KEY) as server:
        answers = ask_all(section(kind, server, max_attempts=20), asked, tmp_path / "a", backoff=QUICK)
        requests = len(server.log)
    assert values(answers) == expected(200)
    assert [answer.question for answer in answers] == asked
    assert not any(answer.cached or answer.failure for answer in answers)
    recorded = ended(tmp_path / "a")
    assert len(recorded) == requests > 240
    assert len([row for row in recorded if row["status"] != "failed"]) == len(server.billed)
    assert len([row for row in recorded if row["status"] == "ok"]) == 200
    replies = [row for row in recorded if row["status"] in ("ok", "unparsable")]
    assert {(row["input_tokens"], row["output_tokens"]) for row in replies} == {TOKENS}
    assert sum(answer.attempts for answer in answers) == len(replies)
    assert any("trouble ***" in row.get("reason", "") for row in recorded), "the server did send the key back"
    assert not any(KEY.encode() in path.read_bytes() for path in (tmp_path / "a").iterdir())
    assert KEY not in "".join(capfd.readouterr())


@KINDS
def test_a_rerun_needs_neither_server_nor_key(kind, tmp_path, monkeypatch):
    asked = questions(5, tmp_path)
    with serving(plan=lambda text, _: "refusal" if text == "q3" else None) as server:
        settings = section(kind, server, max_failed_share=0.2)
        first = ask_all(settings, asked, tmp_path / "a", backoff=QUICK)
    monkeypatch.delenv(VARIABLES[kind])
    before = {path: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    again = ask_all(settings, asked, tmp_path / "a")
    assert values(again) == values(first) == [*expected(3), None, "re q4"]
    assert again[3].failure == first[3].failure and again[3].failure.startswith("refused: ")
    assert all(answer.cached and answer.attempts == 1 for answer in again)
    assert again[0].model_version == "judge-1.5-001"
    assert {path: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before
    with pytest.raises(JudgeError):  # a new question needs the server
        ask_all(settings, questions(6, tmp_path), tmp_path / "a", backoff=QUICK)


def test_equal_questions_are_asked_once(tmp_path):
    asked = questions(3, tmp_path)
    repeated = Question("again", "q1", asked[1].images, parse, schema=asked[1].schema, template="t1", repeat=1)
    with serving() as server:
        answers = ask_all(section("openai", server), [*asked, *asked[::-1], repeated], tmp_path / "a")
    assert values(answers) == [*expected(3), *expected(3)[::-1], "re q1"]
    assert sorted(server.texts()) == ["q0", "q1", "q1", "q2"]


def test_unparsable_replies_count_over_restarts(tmp_path):
    asked = questions(1, tmp_path)
    with serving(plan=lambda *_: "bad text") as server:
        settings = section("openai", server, max_attempts=2, max_failed_share=1.0)
        [answer] = ask_all(settings, asked, tmp_path / "a", backoff=QUICK)
        assert answer.attempts == 2 and answer.failure.startswith("unparsable: 2 replies, the last: ")
        assert answer.text == "so it seems to me" and answer.value is None
        [answer] = ask_all(settings, asked, tmp_path / "a", backoff=QUICK)
        assert answer.cached and len(server.log) == 2
        more = settings.model_copy(update={"max_attempts": 3})
        [answer] = ask_all(more, asked, tmp_path / "a", backoff=QUICK)
        assert answer.attempts == 3 and len(server.log) == 3
    # A parser that understands more needs no call.
    lenient = Question("p", "q0", asked[0].images, str.upper, schema=asked[0].schema, template="t1")
    [answer] = ask_all(settings, [lenient], tmp_path / "a")
    assert answer.value == "SO IT SEEMS TO ME"


def test_recorded_replies_are_parsed_once(tmp_path):
    read = []

    def counted(text: str) -> str:
        read.append(text)
        return parse(text)

    asked = [replace(one, parse=counted) for one in questions(20, tmp_path)]
    with serving(plan=lambda text, nth: "bad text" if text == "q3" and nth == 0 else None) as server:
        ask_all(section("openai", server), asked, tmp_path / "a", backoff=QUICK)
        read.clear()
        answers = ask_all(section("openai", server), asked, tmp_path / "a", backoff=QUICK)
    assert values(answers) == expected(20) and len(read) == 21


def test_given_up_questions_are_recorded_and_asked_again_where_they_must(tmp_path):
    asked = questions(4, tmp_path)
    away = {"q2"}
    with serving(plan=lambda text, _: "503" if text in away else None) as server:
        settings = section("openai", server, max_attempts=3, max_failed_share=0.25)
        answers = ask_all(settings, asked, tmp_path / "a", backoff=QUICK)
        assert "HTTP 503: the endpoint is busy or broken (trouble) (" in answers[2].failure
        calls = len(server.log)
        given_up = ask_all(settings, asked, tmp_path / "a", backoff=QUICK)
        assert given_up[2].failure == answers[2].failure and len(server.log) == calls, "it is recorded as given up"
        stricter = settings.model_copy(update={"max_failed_share": 0.0})
        with pytest.raises(JudgeError, match="1 of 4 questions failed"):
            ask_all(stricter, asked, tmp_path / "a", backoff=QUICK)
        assert len(server.log) > calls, "with it there would be no result, so it is asked again"
        away.clear()
        assert values(ask_all(settings, asked, tmp_path / "a", backoff=QUICK, again=True)) == expected(4)
    assert values(ask_all(stricter, asked, tmp_path / "a")) == expected(4), "an answer is the last word"


def test_too_many_failures_are_an_error_that_counts_them(tmp_path):
    plan = {"q3": "refusal", "q7": "503", "q8": "bad text"}
    with serving(plan=lambda text, _: plan.get(text), delay=0.02) as server:
        settings = section("openai", server, max_attempts=2, max_failed_share=0.04, concurrency=1)
        with pytest.raises(JudgeError) as caught:
            ask_all(settings, questions(60, tmp_path), tmp_path / "a", backoff=QUICK)
        # A call may have begun before the third failure was counted.
        assert len(set(server.texts())) < 30, "what can't change the end is not paid for"
    message = str(caught.value)
    assert message.startswith("judge judge-1.5: ") and "\n" not in message
    assert re.search(r" 3 of (9|[12]\d) questions failed \(1 refused, 1 (HTTP 503|outage), 1 unparsable\), ", message)
    assert "max_failed_share 0.04 of all 60" in message
    assert "the first: prompt 00003: refused: I will not look at this." in message


@KINDS
@pytest.mark.parametrize("fault", ["401", "403", "404"])
def test_errors_that_stay_stop_everything(kind, fault, tmp_path):
    with serving(plan=lambda text, _: fault if text == "q3" else None, delay=0.01, echo=KEY) as server:
        with pytest.raises(JudgeError) as caught:
            ask_all(section(kind, server, concurrency=2), questions(50, tmp_path), tmp_path / "a", backoff=QUICK)
        assert len(server.log) < 10
        ok = len([row for row in ended(tmp_path / "a") if row["status"] == "ok"])
        assert ok == len(server.billed), "calls on their way are recorded"
    assert f"HTTP {fault}" in str(caught.value) and KEY not in str(caught.value)
    assert not any(KEY in str(row) for row in rows(tmp_path / "a"))


def test_retry_after_is_heeded_and_a_long_one_ends_it(tmp_path):
    asked = questions(1, tmp_path)
    with serving(plan=lambda _, nth: "429" if nth == 0 else None, retry_after="0.3") as server:
        start = time.monotonic()
        ask_all(section("openai", server), asked, tmp_path / "a", backoff=QUICK)
        assert time.monotonic() - start >= 0.3
    with serving(plan=lambda *_: "429", retry_after="86400") as server:
        with pytest.raises(JudgeError, match="it asks to wait 86400 s, .* rerun later"):
            ask_all(section("openai", server), asked, tmp_path / "b", backoff=QUICK)
        assert len(server.log) == 1


@KINDS
def test_budget_is_never_exceeded(kind, tmp_path):
    asked = questions(60, tmp_path)
    with serving(delay=0.01) as server:
        settings = section(kind, server, budget_usd=20.5 * PRICE, concurrency=8, **PRICES)
        with pytest.raises(JudgeBudgetError) as caught:
            ask_all(settings, asked, tmp_path / "a", backoff=QUICK)
        spent = len(server.billed)
        assert 8 <= spent <= 20
        message = str(caught.value)
        assert f"budget_usd {20.5 * PRICE:g} is used up: {spent * PRICE:.4g} USD are spent" in message
        assert f"{60 - spent} of 60 questions have no answer" in message and "\n" not in message
        with pytest.raises(JudgeBudgetError):  # also in the next run
            ask_all(settings, asked, tmp_path / "a", backoff=QUICK)
        assert len(server.billed) == spent
        more = settings.model_copy(update={"budget_usd": 100 * PRICE})
        assert values(ask_all(more, asked, tmp_path / "a", backoff=QUICK)) == expected(60)
        assert len(server.billed) == 60


def test_lost_replies_count_against_the_budget(tmp_path):
    with serving(plan=lambda *_: "drop") as server:
        settings = section("openai", server, budget_usd=20 * PRICE, max_attempts=100, max_failed_share=1.0, **PRICES)
        with pytest.raises(JudgeBudgetError):
            ask_all(settings, questions(3, tmp_path), tmp_path / "a", backoff=QUICK)
        assert 0 < len(server.billed) * PRICE <= 20 * PRICE


def test_max_calls_is_never_exceeded(tmp_path):
    asked, patient = questions(30, tmp_path), replace(QUICK, outage_s=60.0)
    with serving(plan=lambda _, nth: "503" if nth == 0 else None) as server:
        settings = section("openai", server, max_calls=25, concurrency=8)
        with pytest.raises(JudgeBudgetError, match="max_calls 25 is used up; .* of 30 questions have no answer"):
            ask_all(settings, asked, tmp_path / "a", backoff=patient)
        assert len(server.log) == 25
        with pytest.raises(JudgeBudgetError):
            ask_all(settings, asked, tmp_path / "a", backoff=patient)
        assert len(server.log) == 25


def test_estimate_before_and_after(tmp_path):
    asked = questions(20, tmp_path)
    with serving() as server:
        settings = section("gemini", server, **PRICES)
        before = estimate(settings, [*asked, asked[0]], tmp_path / "a")
        assert (before.calls, before.recorded, before.output_tokens) == (20, 0, 20 * 64)
        assert not server.log and not (tmp_path / "a").exists()
        ask_all(settings, asked[:5], tmp_path / "a")
        then = estimate(settings, asked, tmp_path / "a")
        assert (then.calls, then.recorded) == (15, 5)
        ask_all(settings, asked, tmp_path / "a")
    actual = len(server.billed[5:]) * PRICE
    assert then.usd == pytest.approx(actual, rel=0.02) and before.usd > 20 * PRICE
    done = estimate(settings, asked, tmp_path / "a")
    assert (done.calls, done.recorded, done.usd, done.input_tokens) == (0, 20, 0.0, 0)
    assert estimate(section("gemini", server), asked[:1], tmp_path / "b").usd is None


def test_concurrency_and_rate(tmp_path):
    with serving(delay=0.02) as server:
        ask_all(section("openai", server, concurrency=3), questions(12, tmp_path), tmp_path / "a")
        assert 2 <= server.most_at_once <= 3
    with serving() as server:
        start = time.monotonic()
        ask_all(section("openai", server, requests_per_minute=1200.0), questions(9, tmp_path), tmp_path / "b")
        assert time.monotonic() - start >= 8 * 0.05


def test_unreadable_images_are_named_before_any_call(tmp_path):
    asked = questions(3, tmp_path)
    with serving() as server:
        for data in (None, b"", b"GIF99", png(1)[:-20]):
            (tmp_path / "00001.png").unlink(missing_ok=True)
            if data is not None:
                (tmp_path / "00001.png").write_bytes(data)
            for function in (ask_all, estimate):
                with pytest.raises(DataError, match=r"prompt 00001: .*00001\.png"):
                    function(section("openai", server), asked, tmp_path / "a")
        assert not server.log


def test_a_bug_in_a_parser_surfaces_and_its_reply_is_kept(tmp_path):
    def broken(text):
        raise KeyError("oops")

    [asked] = questions(1, tmp_path)
    with serving() as server:
        with pytest.raises(KeyError, match="oops"):
            ask_all(section("openai", server), [Question("p", "q0", asked.images, broken)], tmp_path / "a")
        plain = Question("p", "q0", asked.images, str)
        [answer] = ask_all(section("openai", server), [plain], tmp_path / "a")
        assert answer.cached and len(server.log) == 1


def test_half_characters_are_recorded(tmp_path):
    [asked] = questions(1, tmp_path)
    with serving(answer=lambda _: "caf\ud83d") as server:
        settings = section("openai", server)
        answers = [ask_all(settings, [Question("p", "q0", asked.images, str)], tmp_path / "a")[0] for _ in range(2)]
    assert answers[0].value == answers[1].value == "caf?"


SCRIPT = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from judge_cases import QUICK, questions, section
from promptecho.judges.ask import ask_all
folder = Path({folder!r})
settings = section("openai", endpoint={url!r}, concurrency=4, **{extra!r})
answers = ask_all(settings, questions({count}, folder), folder / "a", backoff=QUICK)
print(sum(a.cached for a in answers), sum(a.value is not None for a in answers))
"""


def run(server, folder, count=40, **extra):
    script = SCRIPT.format(here=str(HERE), folder=str(folder), url=f"{server.url}/v1", count=count, extra=extra)
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=HERE.parent.parent, env={**os.environ, "OPENAI_API_KEY": KEY},
        # Where the tests run in a shell's background, interrupts are ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def wait_for_calls(server, count, process):
    while len(server.log) < count:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


def test_killed_midway_a_rerun_repeats_no_finished_call(tmp_path):
    with serving(delay=0.05) as server:
        first = run(server, tmp_path)
        wait_for_calls(server, 15, first)
        first.kill()
        first.communicate()
        recorded = {row["id"] for row in ended(tmp_path / "a")}
        asked_before = len(server.log)
        second = run(server, tmp_path)
        out, err = second.communicate()
        assert second.returncode == 0, err
        texts = server.texts()
        repeated = {text for text in texts if texts.count(text) > 1}
    assert out.split() == [str(len(recorded)), "40"]
    assert len(recorded) >= 15 - 4 - 1 and asked_before - len(recorded) <= 4
    assert len(repeated) <= 4 and not {f"prompt {int(text[1:]):05d}" for text in repeated} & recorded
    assert len(texts) == 40 + len(repeated)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 1)])
def test_asked_to_stop_the_calls_on_their_way_are_recorded(number, code, tmp_path):
    with serving(delay=0.15) as server:
        process = run(server, tmp_path)
        wait_for_calls(server, 6, process)
        process.send_signal(number)
        _, err = process.communicate()
        assert process.returncode in (code, -number), err
        begun = len(server.log)
        assert begun < 40 and "calls on their way are waited for" in err
        assert len(ended(tmp_path / "a")) == begun == len(rows(tmp_path / "a")) // 2


def test_processes_that_share_a_folder_ask_no_question_twice_and_share_a_budget(tmp_path):
    with serving(delay=0.03) as server:
        both = [run(server, tmp_path) for _ in range(2)]
        for process in both:
            out, err = process.communicate()
            assert process.returncode == 0 and out.split()[1] == "40", err
        assert sorted(server.texts(), key=lambda text: int(text[1:])) == [f"q{index}" for index in range(40)]
    (tmp_path / "b").mkdir()
    with serving(delay=0.03) as server:
        both = [run(server, tmp_path / "b", max_calls=21) for _ in range(2)]
        for process in both:
            _, err = process.communicate()
            assert process.returncode == 1 and "max_calls 21 is used up" in err
        assert len(server.log) == 21


def test_a_long_pause_does_not_hold_up_an_error(tmp_path):
    plan = {"q0": "503", "q1": "404"}
    with serving(plan=lambda text, _: plan[text]) as server, pytest.raises(JudgeError, match="HTTP 404"):
        settings = section("openai", server, concurrency=2)
        ask_all(settings, questions(2, tmp_path), tmp_path / "a", backoff=Backoff(initial=3600.0, longest=3600.0))
