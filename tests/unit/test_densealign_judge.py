"""Pairs compared by a judge behind a real HTTP server on loopback that speaks OpenAI's wire format.

The server looks at the pixels that it is sent and reads the caption from the text, as a model would.
"""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from densealign_world import write_pairs
from PIL import Image

from promptecho.benchmarks.captions.rules import claim_of
from promptecho.benchmarks.densealign.facts import compare, fulfilment
from promptecho.benchmarks.densealign.scorer import summary_of
from promptecho.benchmarks.registry import load_scorer
from promptecho.benchmarks.scoring import ImageFolder, ScoringOptions
from promptecho.config.judges import JudgeSection
from promptecho.errors import ConfigError, DataError, PromptEchoError
from promptecho.shapes.oracle import detect

pytest.importorskip("openai", reason="NOT TESTED: the package openai is missing; pip install openai")
COUNT = 16


@dataclass
class Request:
    """One call as it arrived."""

    caption: str
    images: list[Image.Image]
    body: dict


@dataclass
class Server:
    """Answers each request with `reply(request)`, a status and the text of a message."""

    reply: Callable[[Request], tuple[int, str]]
    requests: list[Request] = field(default_factory=list)
    endpoint: str = ""


def honest(request: Request) -> tuple[int, str]:
    claim = claim_of(request.caption)
    preference = compare(*(fulfilment(claim, detect(image)) for image in request.images))
    return 200, json.dumps({"reasoning": "I counted facts.", "preference": preference})


def read_request(body: dict) -> Request:
    parts = body["messages"][-1]["content"]
    text = "".join(part["text"] for part in parts if part["type"] == "text")
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    images = [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB") for url in urls]
    return Request(text.partition("Description:\n")[2].partition("\n")[0], images, body)


@contextmanager
def serve(reply: Callable[[Request], tuple[int, str]]) -> Iterator[Server]:
    state, lock = Server(reply), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            request = read_request(body)
            with lock:
                state.requests.append(request)
                status, text = state.reply(request)
            message = {"role": "assistant", "content": text}
            answer: dict = {
                "id": "x", "object": "chat.completion", "created": 0, "model": "oracle-1",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
            }  # fmt: skip
            data = json.dumps(answer if status == 200 else {"error": {"message": text}}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.endpoint = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> ImageFolder:
    prompts, candidate, baseline = write_pairs(tmp_path_factory.mktemp("pairs"), COUNT)
    return ImageFolder(candidate, prompts, 1, baseline)


@pytest.fixture(autouse=True)
def key(monkeypatch) -> None:
    monkeypatch.setenv("DENSEALIGN_TEST_KEY", "not-a-secret")


def options(server: Server, answers: Path, seed: int = 0, **settings) -> ScoringOptions:
    where = {"endpoint": server.endpoint, "api_key_env": "DENSEALIGN_TEST_KEY"}
    judge = JudgeSection(kind="openai", model="oracle", **where, **settings)
    return ScoringOptions("judge", judge=judge, answers=answers, seed=seed)


def test_a_judge_that_looks_agrees_with_the_oracle(world, tmp_path):
    with serve(honest) as server:
        scorer = load_scorer("densealign", options(server, tmp_path / "answers"))
        before = scorer.estimate(world)
        scored = scorer.score(world)
        after = scorer.estimate(world)
        assert (before.calls, before.recorded) == (COUNT, 0) and (after.calls, after.recorded) == (0, COUNT)
        assert len(server.requests) == COUNT
        again = load_scorer("densealign", options(server, tmp_path / "answers")).score(world)
        assert len(server.requests) == COUNT  # every answer was on record
    assert (again.items, again.raw, again.summary) == (scored.items, scored.raw, scored.summary)
    expected = load_scorer("densealign", ScoringOptions("oracle")).score(world)
    assert scored.items == expected.items and scored.summary == expected.summary == summary_of(scored.raw)
    assert "oracle" in scorer.judge_model
    row = scored.raw[0]
    assert json.loads(row["reply"])["preference"] == row["preference"] and row["reason"] == "I counted facts."
    assert row["model_version"] == "oracle-1" and len(row["template_digest"]) == 16
    json.dumps(scored.raw, allow_nan=False)


def test_the_judge_gets_both_images_in_the_recorded_order_at_the_papers_temperature(world, tmp_path):
    with serve(honest) as server:
        scored = load_scorer("densealign", options(server, tmp_path / "answers")).score(world)
    by_caption = {request.caption: request for request in server.requests}
    for row in scored.raw:
        request = by_caption[row["caption"]]
        files = [world.root / row["candidate"], world.baseline / row["baseline"]]
        shown = files[::-1] if row["swapped"] else files
        assert [image.tobytes() for image in request.images] == [Image.open(f).convert("RGB").tobytes() for f in shown]
        assert request.body["temperature"] == 0.3
    assert {row["swapped"] for row in scored.raw} == {True, False}


def test_another_seed_asks_again_and_for_an_honest_judge_gives_the_same_items(world, tmp_path):
    with serve(honest) as server:
        first = load_scorer("densealign", options(server, tmp_path / "answers", seed=0)).score(world)
        second = load_scorer("densealign", options(server, tmp_path / "answers", seed=1)).score(world)
        moved = sum(a["swapped"] != b["swapped"] for a, b in zip(first.raw, second.raw, strict=True))
        assert 0 < moved < COUNT and len(server.requests) == COUNT + moved  # the others were asked in this order
    assert first.items == second.items


def test_a_judge_that_always_takes_the_first_image_shows_as_biased(world, tmp_path):
    with serve(lambda _: (200, '{"reasoning": "", "preference": "image_a"}')) as server:
        scored = load_scorer("densealign", options(server, tmp_path / "answers")).score(world)
    summary = scored.summary
    swapped = sum(row["swapped"] for row in scored.raw)
    assert summary["net"] == (COUNT - 2 * swapped) / COUNT and abs(summary["net"]) <= 0.5
    assert summary["first_position_rate"] == 1 and summary["position_bias_p"] < 0.01


def test_an_unusable_reply_is_asked_again_and_a_pair_without_any_is_failed_never_a_tie(world, tmp_path):
    asked: dict[str, int] = {}

    def flaky(request: Request) -> tuple[int, str]:
        asked[request.caption] = asked.get(request.caption, 0) + 1
        index = list(asked).index(request.caption)
        if index == 0:
            return 200, '{"reasoning": "Both.", "preference": "both"}'  # never usable
        if index in (1, 2) and asked[request.caption] == 1:
            return ((503, "busy"), (200, "Image A, I think."))[index - 1]
        return honest(request)

    with serve(flaky) as server:
        settings = {"max_attempts": 2, "concurrency": 1, "max_failed_share": 0.1}
        scored = load_scorer("densealign", options(server, tmp_path / "answers", **settings)).score(world)
        assert len(server.requests) == COUNT + 3
    failed = [item.prompt_id for item in scored.items if item.failed]
    rows = {row["prompt_id"]: row for row in scored.raw}
    assert len(scored.items) == COUNT and len(failed) == 1
    row = rows[failed[0]]
    assert row["outcome"] is None and row["preference"] is None and row["reason"] and row["caption"] == list(asked)[0]
    expected = load_scorer("densealign", ScoringOptions("oracle")).score(world)
    assert [i for i in scored.items if not i.failed] == [i for i in expected.items if i.prompt_id != failed[0]]


def test_too_many_failures_stop_the_stage(world, tmp_path):
    with serve(lambda _: (200, "I cannot say.")) as server, pytest.raises(PromptEchoError):
        load_scorer("densealign", options(server, tmp_path / "answers", max_attempts=1)).score(world)


def test_an_interrupted_scoring_goes_on_where_it_was(world, tmp_path):
    def refuse_after(request: Request) -> tuple[int, str]:
        return honest(request) if len(server.requests) <= 5 else (401, "the key is not valid")

    with serve(refuse_after) as server:
        scorer = load_scorer("densealign", options(server, tmp_path / "answers", concurrency=1))
        with pytest.raises(PromptEchoError):
            scorer.score(world)
        assert scorer.estimate(world).recorded == 5
        done = len(server.requests)
        server.reply = honest
        scored = scorer.score(world)
        assert len(server.requests) - done == COUNT - 5
    assert scored.items == load_scorer("densealign", ScoringOptions("oracle")).score(world).items


def test_the_users_own_text_is_asked_and_its_digest_recorded(world, tmp_path):
    own = tmp_path / "texts/densealign/pairwise.txt"
    own.parent.mkdir(parents=True)
    own.write_text("Description:\n{prompt}\nWhich one?")
    with serve(honest) as server:
        plain = load_scorer("densealign", options(server, tmp_path / "answers")).score(world)
        changed = options(server, tmp_path / "answers")
        changed = ScoringOptions(**{**changed.__dict__, "templates": tmp_path / "texts"})
        other = load_scorer("densealign", changed).score(world)
        assert len(server.requests) == 2 * COUNT
        text = [part["text"] for part in server.requests[-1].body["messages"][-1]["content"] if part["type"] == "text"]
        assert "".join(text).endswith("Which one?")
        assert other.items == plain.items and other.raw[0]["template_digest"] != plain.raw[0]["template_digest"]
        own.write_text("Which one?")
        with pytest.raises(DataError, match=r"pairwise\.txt: lacks \{prompt\}"):
            load_scorer("densealign", changed)
    with pytest.raises(ConfigError, match="backend judge: which one"):
        load_scorer("densealign", ScoringOptions("judge"))
