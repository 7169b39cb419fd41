"""What judges send over HTTP, and how replies and errors of both wire formats are understood."""

from __future__ import annotations

import io
import pickle
import socket
import traceback

import pytest
from judge_cases import VARIABLES, Verdict, png, section, set_keys
from judge_server import KEY, TOKENS, serving
from PIL import Image

from promptecho.errors import ConfigError
from promptecho.judges.base import Payload
from promptecho.judges.errors import JudgeBusyError, JudgeError
from promptecho.judges.names import judge_name
from promptecho.judges.registry import load_judge

KINDS = pytest.mark.parametrize("kind", ["gemini", "openai"])


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    set_keys(monkeypatch)


def payload(**values) -> Payload:
    images = (("image/png", png(1)), ("image/png", png(2)))
    return Payload(
        **({"system": "Be fair.", "text": "q?", "images": images, "schema": Verdict, "temperature": 0.3} | values)
    )


def load(kind, server, **values):
    pytest.importorskip("openai" if kind == "openai" else "google.genai")
    return load_judge(section(kind, server, **values))


@KINDS
def test_request_holds_system_images_text_and_settings(kind):
    with serving() as server:
        reply = load(kind, server).ask(payload())
    [sent] = server.log
    assert sent["system"] == "Be fair." and sent["text"] == "q?"
    assert sent["images"] == [("image/png", png(1)), ("image/png", png(2))]
    assert sent["temperature"] == 0.3 and sent["limit"] == 64
    assert sent["schema"]["properties"]["answer"]["type"] == "string"
    assert sent["schema"]["additionalProperties"] is False and sent["schema"]["required"] == ["answer"]
    assert KEY in (sent["headers"].get("x-goog-api-key") or sent["headers"]["authorization"])
    paths = {"gemini": "/v1beta/models/judge-1.5:generateContent", "openai": "/v1/chat/completions"}
    assert sent["path"] == paths[kind]
    assert reply.text == '{"answer": "re q?"}' and reply.refusal is None
    assert (reply.input_tokens, reply.output_tokens) == TOKENS and reply.model_version == "judge-1.5-001"


@KINDS
@pytest.mark.parametrize("structured", ["json_object", "none"])
def test_structured_output_can_be_less(kind, structured):
    with serving() as server:
        load(kind, server, structured_output=structured).ask(payload())
        load(kind, server).ask(payload(schema=None))
    for sent in server.log:
        assert sent["schema"] is None
    loose = {"gemini": "application/json", "openai": "json_object"}[kind]
    assert server.log[0]["format"] == (loose if structured == "json_object" else None)
    assert server.log[1]["format"] is None


@KINDS
def test_a_server_of_ones_own_needs_no_key(kind, monkeypatch):
    monkeypatch.delenv(VARIABLES[kind])
    with serving() as server:
        assert load(kind, server).ask(payload()).text
        assert not any(KEY in value for value in server.log[0]["headers"].values())


@KINDS
def test_the_providers_own_endpoint_needs_a_key(kind, monkeypatch):
    monkeypatch.delenv(VARIABLES[kind])
    with pytest.raises(JudgeError, match=f"no key; set the environment variable {VARIABLES[kind]}"):
        load(kind, None)
    with pytest.raises(JudgeError, match="OTHER_KEY"):
        load(kind, None, api_key_env="OTHER_KEY")


@KINDS
@pytest.mark.parametrize("fault", ["refusal", "safety"])
def test_refusals_are_replies(kind, fault):
    with serving(plan=lambda *_: fault) as server:
        reply = load(kind, server).ask(payload())
    assert reply.refusal and reply.input_tokens == TOKENS[0]


@KINDS
@pytest.mark.parametrize(
    ("fault", "billed"),
    [("429", False), ("500", False), ("503", False), ("drop", True), ("garbage", True), ("truncated", True)],
)
def test_faults_that_may_pass(kind, fault, billed):
    with serving(plan=lambda *_: fault, retry_after="7") as server:
        with pytest.raises(JudgeBusyError) as caught:
            load(kind, server).ask(payload())
        assert len(server.log) == 1, "the SDK must not try again by itself"
    assert caught.value.maybe_billed is billed
    assert caught.value.retry_after == (7.0 if fault == "429" else None)


@KINDS
def test_time_out(kind):
    message = "time-out: no reply within 0.3 s"
    with serving(plan=lambda *_: "time-out") as server, pytest.raises(JudgeBusyError, match=message) as caught:
        load(kind, server, timeout_s=0.3).ask(payload())
    assert caught.value.maybe_billed


@KINDS
def test_nobody_listens(kind):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    judge = load(kind, None, endpoint=f"http://127.0.0.1:{port}")
    with pytest.raises(JudgeBusyError, match=f"connection refused: nobody listens at 127.0.0.1:{port}") as caught:
        judge.ask(payload())
    assert not caught.value.maybe_billed


@KINDS
@pytest.mark.parametrize(("fault", "message"), [
    ("400", "request is refused .trouble"), ("401", "the key in .*_API_KEY is refused"), ("403", "may not do this"),
    ("404", "no model judge-1.5 at http"),
])  # fmt: skip
def test_faults_that_will_not_pass(kind, fault, message):
    with serving(plan=lambda *_: fault) as server, pytest.raises(JudgeError, match=message) as caught:
        load(kind, server).ask(payload())
    assert not isinstance(caught.value, JudgeBusyError) and "\n" not in str(caught.value)


def test_gemini_tells_waiting_time_and_bad_keys_in_the_body():
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}
    bad_key = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
    errors = {
        429: {"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED", "details": [retry]}},
        400: {"error": {"code": 400, "message": "bad key", "status": "INVALID_ARGUMENT", "details": [bad_key]}},
    }
    with serving(plan=lambda text, _: text, errors=errors, retry_after=None) as server:
        judge = load("gemini", server)
        with pytest.raises(JudgeBusyError) as caught:
            judge.ask(payload(text="429"))
        assert caught.value.retry_after == 34.5
        with pytest.raises(JudgeError, match="the key in GEMINI_API_KEY is refused"):
            judge.ask(payload(text="400"))


def test_openai_credit_and_input_filters():
    errors = {
        429: {"error": {"message": "pay", "type": "insufficient_quota", "code": "insufficient_quota"}},
        400: {"error": {"message": "no", "type": "x", "code": "content_policy_violation"}},
    }
    with serving(plan=lambda text, _: text, errors=errors) as server:
        judge = load("openai", server)
        with pytest.raises(JudgeError, match="no credit left") as caught:
            judge.ask(payload(text="429"))
        assert not isinstance(caught.value, JudgeBusyError)
        assert "content_policy_violation" in judge.ask(payload(text="400")).refusal


@KINDS
def test_the_key_shows_nowhere(kind):
    """Not in an error, its chain or its traceback, nor in a repr, and no judge is pickled with it."""
    faults = ["429", "500", "400", "401", "403", "404", "drop", "garbage", "truncated", "time-out"]
    with serving(plan=lambda text, _: text, echo=KEY, hang=0.5) as server:
        judge = load(kind, server, timeout_s=0.25)
        for fault in faults:
            with pytest.raises(JudgeError) as caught:
                judge.ask(payload(text=fault))
            error = caught.value
            shown = "".join(traceback.format_exception(error))
            assert KEY not in shown + repr(error) + repr(vars(error)), fault
            assert error.__cause__ is None and error.__context__ is None, fault
            assert KEY.encode() not in pickle.dumps(error), fault
        echoing = serving(answer=lambda _: f"your key is {KEY}")
        with echoing as echo:
            assert KEY not in repr(load(kind, echo).ask(payload()))
    assert KEY not in repr(judge) + repr(judge.endpoint)
    with pytest.raises(TypeError):
        pickle.dumps(judge)


@KINDS
@pytest.mark.parametrize("key", ["sk-two words-12", "sk-line\nbreak-12", "sk-k\u00e9y-123456", "\u201csk-quoted\u201d"])
def test_what_cannot_be_a_key_is_told_without_showing_it(kind, key, monkeypatch):
    """Before any call: an HTTP library would quote it, or seem to have lost the connection."""
    with serving() as server:
        monkeypatch.setenv("JUDGE_KEY", key)
        with pytest.raises(JudgeError, match="JUDGE_KEY holds spaces, line breaks or letters") as caught:
            load(kind, server, api_key_env="JUDGE_KEY")
        assert "sk-" not in str(caught.value) and not isinstance(caught.value, JudgeBusyError) and not server.log


def test_names():
    assert judge_name(section("gemini")) == "judge-1.5"
    assert judge_name(section("openai", endpoint="https://api.openai.com/v1/")) == "judge-1.5"
    assert judge_name(section("openai", endpoint="http://node7:8000/v1")) == "judge-1.5"
    assert judge_name(section("local", model="shapes")) == "shapes"
    for endpoint in ("https://me:pass@host/v1", "https://host/v1?key=abc", "node7:8000", "ftp://host"):
        with pytest.raises(ConfigError) as caught:
            judge_name(section("openai", endpoint=endpoint))
        assert "pass" not in str(caught.value).replace("password", "") and "abc" not in str(caught.value)


def test_images_are_sent_as_the_settings_say(tmp_path):
    from promptecho.judges.base import Question
    from promptecho.judges.prepare import Preparer

    path = tmp_path / "a.png"
    path.write_bytes(png(3))
    jpeg = io.BytesIO()
    Image.new("L", (20, 10), 90).save(jpeg, "JPEG")
    question = Question("p", "q", (path, jpeg.getvalue), str)
    for format_, other in (("png", 1), ("jpeg", 0)):
        preparer = Preparer(section("openai", image_format=format_), "m")
        images = preparer.payload(preparer.prepare(question), 1).images
        assert [media for media, _ in images] == [f"image/{format_}"] * 2
        assert images[1 - other][1] == (png(3), jpeg.getvalue())[1 - other], "bytes of that format stay as they are"
        assert Image.open(io.BytesIO(images[other][1])).format == format_.upper()
