"""Endpoints that fail: outages are waited out, one question's trouble is that question's, and causes are told apart."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
import time

import pytest
from judge_cases import QUICK, VARIABLES, ended, questions, rows, section
from judge_cases import environment as environment
from judge_server import serving
from test_judges_wire import load, payload

from promptecho.judges.ask import ask_all
from promptecho.judges.errors import JudgeBusyError, JudgeError
from promptecho.judges.patience import Backoff

KINDS = pytest.mark.parametrize("kind", ["gemini", "openai"])
COUNT = 150
PATIENT = Backoff(initial=0.01, longest=0.1, jitter=0.01, outage_s=60.0, quiet_s=0.1)


@pytest.mark.parametrize("status", ["503", "429"])
def test_an_outage_is_waited_out_and_told_in_one_line(status, tmp_path, capfd):
    """With many more failed calls for each question than max_attempts."""
    begun, lock = [], threading.Lock()

    def plan(text, nth):
        with lock:
            begun.append(text)
            if len(begun) == 40:
                server.down = time.monotonic() + 1.5
        return status if time.monotonic() < server.down else None

    with serving(plan=plan, retry_after=None) as server:
        server.down = 0.0
        settings = section("openai", server, max_attempts=2, concurrency=4)
        answers = ask_all(settings, questions(COUNT, tmp_path), tmp_path / "a", backoff=PATIENT)
        assert len(server.billed) == COUNT, "none is paid for twice"
    assert [answer.value for answer in answers] == [f"re q{index}" for index in range(COUNT)]
    statuses = [row["status"] for row in ended(tmp_path / "a")]
    assert statuses.count("failed") > 4 * 2 and statuses.count("ok") == COUNT
    assert set(statuses) == {"ok", "failed"}
    told = capfd.readouterr().err
    assert told.count("waiting for it up to 60 s (judges.outage_s)") == 1 and told.count("answers again after") == 1


def test_an_outage_that_lasts_is_given_up_by_its_name(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = section("openai", endpoint=f"http://127.0.0.1:{port}/v1")
    with pytest.raises(JudgeError, match=r"\d outage.*no reply for 0.5 s, the last: connection refused: nobody"):
        ask_all(settings, questions(3, tmp_path), tmp_path / "a", backoff=QUICK)


@KINDS
def test_one_poisoned_question_is_its_own_failure(kind, tmp_path, monkeypatch):
    """The endpoint refuses it always: once in a run, with all others answered; and score needs no endpoint then."""
    asked = questions(COUNT, tmp_path)
    with serving(plan=lambda text, _: "400" if text == "q0" else None) as server:
        settings = section(kind, server)
        answers = ask_all(settings, asked, tmp_path / "a", backoff=QUICK)
        assert len(server.log) == COUNT == len(server.billed) + 1
    assert answers[0].failure == "HTTP 400: the request is refused (trouble)"
    assert all(answer.value for answer in answers[1:])
    monkeypatch.delenv(VARIABLES[kind])
    again = ask_all(settings, asked, tmp_path / "a")
    assert [answer.failure for answer in again] == [answer.failure for answer in answers]


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("status", ["503", "429", "529"])
@pytest.mark.parametrize("alone", [["q0"], ["q10", "q11"], ["q29"]], ids="-".join)
def test_questions_that_alone_fail_do_not_hold_up_the_run(status, alone, concurrency, tmp_path):
    """Wherever they stand: an outage is of the server, and this one answers all others."""
    backoff = Backoff(initial=0.01, longest=0.1, jitter=0.01, outage_s=600.0, alone_s=0.1)
    with serving(plan=lambda text, _: status if text in alone else None, retry_after=None) as server:
        settings = section("openai", server, max_attempts=3, concurrency=concurrency, max_failed_share=0.1)
        answers = ask_all(settings, questions(30, tmp_path), tmp_path / "a", backoff=backoff)
        assert len(server.billed) == 30 - len(alone)
    failed = [answer for answer in answers if answer.failure]
    assert [answer.question.text for answer in failed] == alone
    assert all(answer.failure.startswith(f"HTTP {status}: ") and "calls" in answer.failure for answer in failed)


def test_a_request_that_is_always_refused_ends_the_run_soon(tmp_path):
    with serving(plan=lambda *_: "400") as server:
        with pytest.raises(JudgeError, match="HTTP 400: .*first 3 questions.*correct the judge's settings"):
            settings = section("openai", server, concurrency=2, max_failed_share=1.0)
            ask_all(settings, questions(50, tmp_path), tmp_path / "a", backoff=QUICK)
        assert len(server.log) < 6 and not [row for row in rows(tmp_path / "a") if row["status"] == "ok"]


@pytest.mark.parametrize(
    ("kind", "status", "error"),
    [
        ("openai", 400, {"message": "x", "type": "invalid_request_error", "code": "invalid_prompt"}),
        ("openai", 400, {"message": "x", "type": None, "code": "content_filter",
                         "innererror": {"code": "ResponsibleAIPolicyViolation"}}),
        ("openai", 400, {"message": "x", "code": None, "innererror": {"code": "ResponsibleAIPolicyViolation"}}),
        ("openai", 400, {"message": "<400> InternalError.Algo.DataInspectionFailed: Input data may contain "
                         "inappropriate content.", "type": "data_inspection_failed", "code": "data_inspection_failed"}),
        ("openai", 400, {"message": "x", "code": "DataInspectionFailed"}),
        ("openai", 400, {"message": "triggering Azure OpenAI's content management policy", "code": "BadRequest"}),
        ("gemini", 400, {"code": 400, "message": "blocked by Responsible AI practices", "status": "INVALID_ARGUMENT"}),
    ],
)  # fmt: skip
def test_filters_of_all_providers_are_refusals(kind, status, error):
    with serving(plan=lambda *_: str(status), errors={status: {"error": error}}) as server:
        assert load(kind, server).ask(payload()).refusal.startswith("input filtered (")


def test_three_percent_refused_are_failed_items(tmp_path):
    refused = {f"q{index}": "refusal" if index % 2 else "400" for index in (3, 50, 80, 99)}
    error = {"error": {"message": "x", "type": "x", "code": "content_filter"}}
    with serving(plan=lambda text, _: refused.get(text), errors={400: error}) as server:
        settings = section("openai", server, max_failed_share=0.03)
        answers = ask_all(settings, questions(COUNT, tmp_path), tmp_path / "a", backoff=QUICK)
    assert sum(answer.failure is not None for answer in answers) == 4
    assert {answer.kind for answer in answers if answer.failure} == {"refused"}


@KINDS
def test_a_call_ends_after_its_time_even_where_bytes_still_drip(kind):
    """Each byte comes within the time, all of them never do."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip():
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                try:
                    while True:
                        connection.sendall(b" ")
                        time.sleep(0.05)
                except OSError:
                    pass

        threading.Thread(target=drip, daemon=True).start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(JudgeBusyError, match="time-out: no reply within 0.5 s") as caught:
            load(kind, None, endpoint=address, timeout_s=0.5).ask(payload())
    assert caught.value.maybe_billed


@KINDS
def test_a_host_without_address_is_told(kind):
    with pytest.raises(JudgeBusyError, match="DNS: nowhere.invalid:9 has no address") as caught:
        load(kind, None, endpoint="http://nowhere.invalid:9").ask(payload())
    assert caught.value.unknown_host and not caught.value.maybe_billed


def test_a_misspelt_host_ends_the_run_at_once(tmp_path):
    settings = section("openai", endpoint="http://nowhere.invalid:9/v1")
    with pytest.raises(JudgeError, match="DNS: nowhere.invalid:9 has no address.*; correct the endpoint"):
        ask_all(settings, questions(1, tmp_path), tmp_path / "a")


@KINDS
def test_a_certificate_that_nobody_signed_is_told(kind, tmp_path):
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days",
         "1", "-subj", "/CN=localhost"], cwd=tmp_path, capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("NOT TESTED: openssl makes no certificate here")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def shake():
            connection, _ = listener.accept()
            with contextlib.suppress(OSError):
                context.wrap_socket(connection, server_side=True).close()

        threading.Thread(target=shake, daemon=True).start()
        address = f"https://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(JudgeError, match="TLS: the certificate of 127.0.0.1:.* is not trusted") as caught:
            load(kind, None, endpoint=address).ask(payload())
    assert not isinstance(caught.value, JudgeBusyError)


def test_pauses_grow_and_are_those_of_their_question():
    backoff = Backoff()
    pauses = [backoff.pause("a", nth) for nth in range(1, 12)]
    assert pauses == [backoff.pause("a", nth) for nth in range(1, 12)] != [backoff.pause("b", n) for n in range(1, 12)]
    assert 1 <= pauses[0] <= 2 and 32 <= pauses[5] <= 33 and all(60 <= pause <= 61 for pause in pauses[6:])
