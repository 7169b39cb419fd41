"""What endpoints and the proxies before them send in place of a plain reply, and where an endpoint may be."""

from __future__ import annotations

import gzip
import json
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

import pytest
from judge_cases import QUICK, VARIABLES, ended, questions, section
from judge_cases import environment as environment
from judge_server import KEY, _gemini, _openai, serving
from test_judges_wire import load, payload

from promptecho.errors import ConfigError
from promptecho.judges.ask import ask_all
from promptecho.judges.base import Reply
from promptecho.judges.errors import JudgeBusyError, JudgeError, JudgeRejectedError

KINDS = pytest.mark.parametrize("kind", ["gemini", "openai"])
TEXT = '{"answer": "x"}'
HERE = Path(__file__).parent


def http(body: bytes, status: str = "200 OK", kind: str = "application/json", *headers: str) -> bytes:
    """A whole HTTP response."""
    sizes = [f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close"]
    return ("\r\n".join([f"HTTP/1.1 {status}", *sizes, *headers]) + "\r\n\r\n").encode() + body


@contextmanager
def sending(data: bytes, host: str = "127.0.0.1"):
    """A server that sends these bytes whatever it is asked; yields its address and the request lines."""
    lines: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            lines.append(self.rfile.readline().decode().strip())
            length = 0
            while (line := self.rfile.readline().strip().lower()) != b"":
                length = int(line.partition(b":")[2]) if line.startswith(b"content-length") else length
            self.rfile.read(length)
            self.wfile.write(data)

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with type("Server", (socketserver.ThreadingTCPServer,), {"address_family": family})((host, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield (f"[{host}]" if ":" in host else host) + f":{server.server_address[1]}", lines
        server.shutdown()


def asked(kind: str, data: bytes, path: str = "/v1", host: str = "127.0.0.1") -> Reply | JudgeError:
    with sending(data, host) as (address, lines):
        where = f"http://{address}{path if kind == 'openai' else path.removesuffix('/v1')}"
        try:
            found = load(kind, None, endpoint=where).ask(payload())
        except JudgeError as error:
            found = error
    assert len(lines) == 1
    asked.path = lines[0].split()[1]
    return found


def good(kind: str) -> bytes:
    return json.dumps((_gemini if kind == "gemini" else _openai)(TEXT, None, "v1")).encode()


def chunked(body: bytes) -> bytes:
    parts = [body[start : start + 7] for start in range(0, len(body), 7)]
    data = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in [*parts, b""])
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + data


FORMS = {
    "gzip": lambda body: http(gzip.compress(body), "200 OK", "application/json", "Content-Encoding: gzip"),
    "chunked": chunked,
    "spaces before it": lambda body: http(b"\n\n  " + body),
    "charset": lambda body: http(body, "200 OK", "application/json; charset=utf-8"),
}


@KINDS
@pytest.mark.parametrize("form", list(FORMS))
def test_a_reply_may_come_in_any_form(kind, form):
    reply = asked(kind, FORMS[form](good(kind)))
    assert isinstance(reply, Reply) and reply.text == TEXT


def openai(**message) -> bytes:
    whole = _openai("", None, "v1")
    finish = message.pop("finish_reason", "stop")
    whole["choices"][0] |= {"message": {"role": "assistant", "content": None} | message, "finish_reason": finish}
    return json.dumps(whole).encode()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (openai(content=TEXT, reasoning_content="First, " * 50), TEXT),
        (openai(content=TEXT, reasoning="hm", reasoning_details=[{"type": "reasoning.text", "text": "hm"}]), TEXT),
        (openai(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                         {"type": "text", "text": TEXT}]), TEXT),
        (openai(reasoning_content=TEXT), ""),  # thoughts are no answer
        (openai(tool_calls=[{"id": "1", "type": "function", "function": {"name": "f", "arguments": TEXT}}],
                finish_reason="tool_calls"), ""),
        (openai(content=TEXT, finish_reason=None), TEXT),
    ],
    ids=["reasoning_content", "reasoning", "parts", "only thoughts", "tool calls", "no finish reason"],
)  # fmt: skip
def test_only_content_is_the_answer(body, text):
    reply = asked("openai", http(body))
    assert isinstance(reply, Reply) and reply.text == text and reply.refusal is None


HTML = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
BUSY = {
    "html 502": (http(HTML, "502 Bad Gateway", "text/html"), "HTTP 502", False),
    "529": (http(b'{"error": {"message": "overloaded", "type": "overloaded_error"}}', "529 X"), "HTTP 529", False),
    "html 200": (http(HTML, "200 OK", "text/html"), "garbage", True),
    "empty 200": (http(b""), "garbage", True),
    "stream": (http(b"data: {}\n\ndata: [DONE]\n\n", "200 OK", "text/event-stream"), "garbage", True),
    "null": (http(b"null"), "garbage", True),
    "list": (http(b"[1]"), "garbage", True),
    "closed": (b"", "connection lost", True),
    "no http": (b"SSH-2.0-OpenSSH_9.2\r\n", "connection lost", True),
}  # fmt: skip


@KINDS
@pytest.mark.parametrize("name", list(BUSY))
def test_what_is_no_reply_is_told_and_asked_again(kind, name):
    data, told, billed = BUSY[name]
    error = asked(kind, data)
    assert isinstance(error, JudgeBusyError) and str(error).startswith(told), repr(error)
    assert error.maybe_billed == billed and "<" not in str(error)


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        ({"code": 429, "message": "slow down"}, JudgeBusyError, r"HTTP 429: too many requests \(slow down\)"),
        ({"code": "502", "message": "no upstream"}, JudgeBusyError, "HTTP 502"),
        ({"message": "it broke", "type": "server_error"}, JudgeBusyError, "HTTP 502: .*it broke"),
        ({"code": "\u00b2", "message": "a digit, no number"}, JudgeBusyError, "HTTP 502"),
        ({"code": 400, "message": "bad image"}, JudgeRejectedError, "HTTP 400"),
        ({"code": 401, "message": "who"}, JudgeError, "the key in OPENAI_API_KEY is refused"),
        ({"code": 402, "message": "Insufficient Balance"}, JudgeError, "no credit left"),
    ],
)
def test_an_error_within_a_success_is_the_error(error, kind, told):
    found = asked("openai", http(json.dumps({"error": error}).encode()))
    assert type(found) is kind
    with pytest.raises(kind, match=told):
        raise found


@KINDS
def test_retry_after_may_be_a_date(kind):
    then = formatdate(time.time() + 100, usegmt=True)
    error = asked(kind, http(b"{}", "503 X", "application/json", f"Retry-After: {then}"))
    assert 60 < error.retry_after <= 100
    for value in ("Wed, 21 Oct 2015 07:28:00 GMT", "-5", "soon", "nan"):
        error = asked(kind, http(b"{}", "503 X", "application/json", f"Retry-After: {value}"))
        assert error.retry_after in (0.0, None)


def test_no_credit_is_told():
    error = asked("openai", http(b'{"error": {"message": "Insufficient Balance"}}', "402 Payment Required"))
    assert not isinstance(error, JudgeBusyError) and "HTTP 402: the account has no credit left" in str(error)


@KINDS
@pytest.mark.parametrize("path", ["/v1", "/v1/", "/a/b/v1"])
def test_an_endpoint_may_have_a_path(kind, path):
    assert asked(kind, http(good(kind)), path).text == TEXT
    before = path.rstrip("/") if kind == "openai" else path.rstrip("/").removesuffix("/v1")
    # (Without a version, gemini's final slash counts for nothing too.)
    ends = {"openai": "/chat/completions", "gemini": "/v1beta/models/judge-1.5:generateContent"}
    assert asked.path.endswith(ends[kind]) and asked.path.startswith(f"{before}/") and "//" not in asked.path


@KINDS
def test_an_endpoint_may_have_an_address_of_ipv6(kind):
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("NOT TESTED: this machine has no IPv6")
    assert asked(kind, http(good(kind)), host="::1").text == TEXT


def test_an_endpoint_is_given_without_what_is_added():
    with pytest.raises(ConfigError, match="give it without /chat/completions, which is added"):
        load("openai", None, endpoint="http://127.0.0.1:9/v1/chat/completions/")


@KINDS
def test_a_key_that_is_revoked_ends_the_run_and_a_new_one_goes_on(kind, tmp_path, monkeypatch):
    count, revoked = 40, threading.Event()

    def plan(text, nth):
        if len(server.billed) >= 20:
            revoked.set()
        return "401" if revoked.is_set() and KEY in str(server.log[-1]["headers"]) else None

    with serving(plan=plan) as server:
        settings = section(kind, server, concurrency=2)
        with pytest.raises(JudgeError, match=f"HTTP 401: the key in {VARIABLES[kind]} is refused") as caught:
            ask_all(settings, questions(count, tmp_path), tmp_path / "a", backoff=QUICK)
        assert KEY not in str(caught.value) and 20 <= len(server.billed) <= 22
        monkeypatch.setenv(VARIABLES[kind], "another-key-0123456789")
        answers = ask_all(settings, questions(count, tmp_path), tmp_path / "a", backoff=QUICK)
        assert all(answer.value for answer in answers) and len(server.billed) == count


def test_replies_count_in_their_order_though_the_clock_goes_back(tmp_path, monkeypatch):
    """Time of day orders nothing that decides: an answer stays the answer."""
    asked, now = questions(3, tmp_path), time.time()
    with serving(plan=lambda text, nth: "400" if text == "q1" and nth == 0 else None) as server:
        settings = section("openai", server, max_failed_share=0.5)
        first = ask_all(settings, asked, tmp_path / "a", backoff=QUICK)
        monkeypatch.setattr("promptecho.judges.record.time.time", lambda: now - 86400)
        again = ask_all(settings, asked, tmp_path / "a", backoff=QUICK, again=True)
        assert server.texts()[3:] == ["q1"]
    assert [one.value for one in again] == ["re q0", "re q1", "re q2"] and first[1].failure


ASK = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from judge_cases import questions, section
from promptecho.judges.ask import ask_all
settings = section("openai", endpoint={endpoint!r}, concurrency=4)
print(sum(one.value is not None for one in ask_all(settings, questions(30, Path({folder!r})), Path({folder!r}) / "a")))
"""


def test_ctrl_c_in_an_outage_ends_it_and_the_next_start_asks_the_rest(tmp_path):
    away = threading.Event()

    def plan(text, nth):
        if len(server.billed) >= 10 and not away.is_set():
            away.set()
            server.down = True
        return "503" if server.down else None

    with serving(plan=plan) as server:
        server.down = False
        program = ASK.format(here=str(HERE), endpoint=server.endpoint("openai"), folder=str(tmp_path))
        command = [sys.executable, "-c", program]
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert away.wait(120)
            time.sleep(2)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) != 0
        paid = len(server.billed)
        assert 10 <= paid <= 14
        server.down = False
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "30" and len(server.billed) == 30, "none is paid for twice"
    assert sum(row["status"] == "ok" for row in ended(tmp_path / "a")) == 30


def test_two_experiments_that_share_a_folder_ask_each_question_once(tmp_path):
    with serving(delay=0.05) as server:
        program = ASK.format(here=str(HERE), endpoint=server.endpoint("openai"), folder=str(tmp_path))
        questions(30, tmp_path)
        command = [sys.executable, "-c", program]
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        assert [process.communicate()[0].strip() for process in both] == ["30", "30"]
        assert len(server.billed) == 30
