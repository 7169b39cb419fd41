"""A reward over HTTP: the reference server in examples/, and servers that answer otherwise than they must."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_t2i
import tiny_vlm
from forked import ended, ranks, run, start
from tiny_experiment import Experiment, metrics_without_times
from typer.testing import CliRunner

from promptecho.cli import app
from promptecho.config import load_experiment, slice_digest
from promptecho.doctor.reward_servers import reward_servers
from promptecho.errors import ConfigError, RewardError
from promptecho.rewards import RewardContext, make_reward
from promptecho.rewards.http import server as http_server
from promptecho.rewards.http.options import HttpSection
from promptecho.vlm import load_vlm

SERVER = Path(__file__).resolve().parents[2] / "examples" / "reward_server" / "serve_reward.py"
PROMPTS = ["A red circle.", "Two blue stars.", "a green ring", "A cross.", "Three squares."]
IDS = [f"p{i}" for i in range(5)]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(http_server, "BACKOFF", http_server.Backoff(initial=0.01, longest=0.02, jitter=0.0))


@pytest.fixture(scope="module")
def reference():
    spec = importlib.util.spec_from_file_location("serve_reward", SERVER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def running(server):
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def answering(*answers: object):
    """A server that gives these answers one after the other, the last one again: (status, body) or a function of the
    request; yields its URL and what it was asked."""
    asked: list[dict] = []

    class Scripted(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
            asked.append({"body": body, "headers": dict(self.headers), "path": self.path})
            one = answers[min(len(asked), len(answers)) - 1]
            status, raw = one(body) if callable(one) else one
            raw = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
            self.send_response(status)
            if status == 307:
                self.send_header("Location", "http://127.0.0.1:1/rewards")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST

        def log_message(self, *_):
            pass

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Scripted)) as url:
        yield url, asked


def made(url: str | None, *, batch_size: int = 16, seed: int = 0, **options):
    settings = HttpSection(endpoint=url, **{"timeout_s": 30.0, "outage_s": 0.0} | options)
    return make_reward("http", RewardContext(options=settings, batch_size=batch_size, seed=seed))


def images(n: int = 5) -> list:
    found = [tiny_vlm.image(i) for i in range(n)]
    for index, one in enumerate(found):
        one.info["path"] = f"{index}.png"
    return found


def ok(*rewards: object) -> dict:
    return {"protocol": 1, "rewards": list(rewards)}


def test_the_reference_server_gives_the_rewards_of_the_reward_it_is_around(reference):
    vlm, seeds = load_vlm(tiny_vlm.shared_folder()), []

    def make(seed: int):
        seeds.append(seed)
        return make_reward("echo", RewardContext(vlm=vlm, batch_size=2))

    local = make_reward("echo", RewardContext(vlm=vlm, batch_size=2))
    with running(reference.make_server(make, "echo by tiny", "127.0.0.1", 0)) as url:
        reward = made(url, batch_size=2, seed=7, reward="echo by tiny")
        assert reward(images(), PROMPTS, IDS) == pytest.approx(local(images(), PROMPTS, IDS), abs=1e-6)
        assert seeds == [7, 7, 7]
        with pytest.raises(RewardError, match="it calls itself 'echo by tiny', and http.reward is 'echo by other'"):
            made(url, reward="echo by other")(images(1), PROMPTS[:1], IDS[:1])
        with pytest.raises(RewardError, match="HTTP 400: refuses the request.*empty"):
            made(url)(images(1), [" "], ["p9"])


def test_a_server_with_a_key_wants_it_and_no_text_has_it(reference, monkeypatch):
    def make(seed: int):
        return lambda images, prompts, ids: [float("nan") for _ in images]

    with running(reference.make_server(make, "none", "127.0.0.1", 0, "secret-key-1")) as url:
        with pytest.raises(RewardError, match="HTTP 401: wants a key; set http.api_key_env"):
            made(url)(images(1), PROMPTS[:1], IDS[:1])
        with pytest.raises(RewardError, match="no key; set the environment variable MY_KEY"):
            made(url, api_key_env="MY_KEY")
        monkeypatch.setenv("MY_KEY", "secret-key-1")
        built = made(url, api_key_env="MY_KEY")
        assert math.isnan(built(images(1), PROMPTS[:1], IDS[:1])[0]) and built.may_be_missing
        assert "secret" not in repr(built.function.server)
    with answering((500, {"error": "trouble with secret-key-1"})) as (url, asked):
        with pytest.raises(RewardError, match=r"trouble with \*\*\*") as caught:
            made(url, api_key_env="MY_KEY")(images(1), PROMPTS[:1], IDS[:1])
        assert "secret" not in str(caught.value)
        assert asked[0]["headers"]["Authorization"] == "Bearer secret-key-1" and asked[0]["path"] == "/rewards"


def test_requests_hold_the_pixels_and_answers_keep_their_order(reference):
    seen = []

    def rewards(body):
        _, items = reference.read_items(body)
        seen.extend((image.tobytes(), prompt, prompt_id, image.info["path"]) for image, prompt, prompt_id in items)
        time.sleep(0.1 if items[0][2] == "p0" else 0.0)  # the first is the last
        return 200, ok(*(int(prompt_id[1:]) for _, _, prompt_id in items))

    with answering(rewards) as (url, asked):
        assert made(url, batch_size=2)(images(), PROMPTS, IDS) == [0, 1, 2, 3, 4]
    assert len(asked) == 3 and {len(one["body"]["items"]) for one in asked} == {1, 2}
    expected = [(one.convert("RGB").tobytes(), *more) for one, *more in zip(
        images(), PROMPTS, IDS, [f"{i}.png" for i in range(5)], strict=True)]  # fmt: skip
    assert sorted(seen) == sorted(expected)


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (200, ok(1.0), "it gave 1 rewards for 2 images"),
        (200, ok(1.0, "2"), "a reward is '2', which is neither a number nor null"),
        (200, ok(1.0, True), "a reward is 'True', which is neither"),
        (200, b'{"protocol": 1, "rewards": [NaN, 1]}', "holds NaN, which is no JSON; null stands for"),
        (200, b'{"protocol": 1, "rewards": [1e999, 1]}', "a reward is not finite"),
        (200, ok(10**400, 1), "a reward is not finite"),
        (200, {"protocol": 2, "rewards": [1, 2]}, "it speaks protocol 2, and this version 1"),
        (200, {"rewards": [1, 2]}, "it speaks protocol None, and this version 1"),
        (200, {"protocol": 1}, "has no list `rewards`"),
        (200, [1, 2], "is a JSON list and no object"),
        (200, b"<html>hello</html>", "is no JSON .'<html>hello</html>'."),
        (307, {}, "HTTP 307: sends the request elsewhere, where no key goes; correct http.endpoint"),
        (404, {"error": "no such path"}, "HTTP 404: has nothing there .no such path.; correct http.endpoint"),
        (400, {"error": "too dark", "item": 1}, r"HTTP 400: refuses the request .too dark. .prompt p1, image 1.png."),
        (503, {"error": "loading"}, "HTTP 503: it is busy or broken .loading. .asked once in http.outage_s 0 s."),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_refused_by_name(status, body, told):
    with answering((status, body)) as (url, asked):
        with pytest.raises(RewardError, match=told) as caught:
            made(url)(images(2), PROMPTS[:2], IDS[:2])
        assert str(caught.value).startswith(f"reward http: {url}: ") and "\n" not in str(caught.value)
        assert len(asked) == 1
        assert caught.value.index == (1 if status == 400 else None)


def test_the_command_prints_a_reward_that_is_missing(tmp_path):
    tiny_vlm.image(0).save(tmp_path / "a.png")
    with answering((200, ok(None))) as (url, _):
        words = ["reward", str(tmp_path / "a.png"), "--label", "A star.", "--name", "http", "--set", f"endpoint={url}"]
        said = [CliRunner().invoke(app, [*words, *more]) for more in (["--json"], [])]
    assert json.loads(said[0].stdout)[0]["reward"] is None
    assert "none" in said[1].stdout and "nan" not in said[1].stdout


def test_a_server_that_is_away_is_asked_again_and_then_named():
    with answering((503, {}), (429, {}), (200, ok(None, 3))) as (url, asked):
        found = made(url, outage_s=20)(images(2), PROMPTS[:2], IDS[:2])
        assert math.isnan(found[0]) and found[1] == 3 and len(asked) == 3
    with pytest.raises(RewardError, match=r"nobody listens at 127.0.0.1:\d+ .asked \d+ times .* start the server"):
        made(url, outage_s=0.05)(images(1), PROMPTS[:1], IDS[:1])
    slow, told = answering(lambda _: (time.sleep(0.6), (200, ok(1)))[1]), "no answer within 0.2 s"
    with slow as (url, _), pytest.raises(RewardError, match=told):
        made(url, timeout_s=0.2)(images(1), PROMPTS[:1], IDS[:1])


def test_keys_of_the_configuration(tmp_path):
    experiment = Experiment(tmp_path, t2i=tiny_t2i.shallow_folder())

    def digest(**options) -> str:
        rewards = [{"name": "http", "http": {"endpoint": "http://a:1", **options}}]
        config = load_experiment(experiment.config("exp", sections={"rewards": rewards}))
        return slice_digest(config, "train", "r")

    assert digest() == digest(endpoint="https://b:2", timeout_s=3, outage_s=1, concurrency=1, api_key_env="K")
    assert digest() != digest(reward="mine")
    for rewards, told in (
        ([{"name": "http"}], "rewards.0.http.endpoint: is missing"),
        ([{"name": "http", "http": {"endpoint": "host:1"}}], "endpoint: give a URL such as http://host:8123"),
        ([{"name": "http", "http": {"endpoint": "http://me:key@host"}}], "endpoint: holds a name, key or query"),
        ([{"name": "http", "query": "?", "http": {"endpoint": "http://h"}}], "rewards.0.query: http has none"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_experiment(experiment.config("wrong", sections={"rewards": rewards}))
        assert told in str(caught.value) and "me:key" not in str(caught.value), str(caught.value)


def test_the_doctor_asks_who_answers(tmp_path, reference):
    experiment = Experiment(tmp_path, t2i=tiny_t2i.shallow_folder())

    def findings(url: str) -> list:
        rewards = [{"name": "http", "http": {"endpoint": url, "reward": "constant"}}]
        config = load_experiment(experiment.config("exp", sections={"rewards": rewards}))
        return list(reward_servers(SimpleNamespace(config=config, names=lambda stage: ["r"], network=True)))

    with running(reference.make_server(lambda seed: None, "constant", "127.0.0.1", 0)) as url:
        (found,) = findings(url)
        assert (found.severity, found.what) == ("fine", f"reward http: {url} answers as constant")
    (found,) = findings(url)
    assert found.severity == "problem" and "nobody listens" in found.what


def test_two_ranks_train_by_a_server_as_one_process_by_the_reward_itself(tmp_path, reference):
    experiment = Experiment(tmp_path, t2i=tiny_t2i.shallow_folder())
    vlm, asked = load_vlm(experiment.vlm), []

    def make(seed: int):
        echo = make_reward("echo", RewardContext(vlm=vlm, batch_size=3))
        return lambda images, prompts, ids: asked.append(len(images)) or echo(images, prompts, ids)

    short = {"iterations": 1, "checkpoints": [1], "passes": 1, "batch_size": 8, "timesteps": {"per_sample": 1}}
    with running(reference.make_server(make, "echo", "127.0.0.1", 0)) as url:
        rewards = [{"name": "http", "batch_size": 3, "http": {"endpoint": url}}]
        config = experiment.config("served", sections={"rewards": rewards}, **short)
        run(experiment.train(config, 1, "served"), ranks(2))
    run(experiment.train(experiment.config("alone", **short), 1, "alone"))
    assert asked and sum(asked) == 8 and sorted(asked) == [1, 1, 3, 3]  # four images on each rank
    ours, theirs = (metrics_without_times(tmp_path / name / "1")[-1] for name in ("served", "alone"))
    assert ours["reward_mean"] == pytest.approx(theirs["reward_mean"], rel=1e-5)


def test_the_server_runs_with_one_command_and_the_command_asks_it(tmp_path):
    process = start(["--reward", "echo", "--vlm", "shapes", "--port", "0", "--device", "cpu"], script=SERVER)
    try:
        while (found := re.search(r"echo by shapes: (http://\S+)/rewards", process.said())) is None:
            assert process.poll() is None, process.communicate()[1][-3000:]
            time.sleep(0.02)
        tiny_vlm.image(0).save(tmp_path / "a.png")
        ask = ["reward", str(tmp_path / "a.png"), "--label", "A red circle.", "--json"]
        served = ended([*ask, "--name", "http", "--set", f"endpoint={found[1]}"])
        local = ended([*ask, "--vlm", "shapes", "--device", "cpu"])
    finally:
        process.kill()
    ours, theirs = (json.loads(one[0])[0]["reward"] for one in (served, local))
    assert ours == pytest.approx(theirs, abs=1e-5)
