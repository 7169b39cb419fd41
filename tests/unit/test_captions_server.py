"""Captions from a server: real HTTP servers as processes, killed and started again; nothing is asked twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from caption_server import caption_of
from forked import free_port
from PIL import Image

from promptecho.captions.merge import MergeSpec, merge_shards
from promptecho.captions.server_shard import caption_shard_by_server
from promptecho.captions.shard_spec import GenerationSettings, ShardSpec
from promptecho.captions.store import read_captions
from promptecho.config import ExperimentConfig, load_experiment
from promptecho.config.caption_server import CaptionServerSection
from promptecho.config.job_sizes import as_reader, cluster_resources, takes_gpu
from promptecho.config.resources import StageResources
from promptecho.config.slices import slice_digest, slice_value
from promptecho.doctor.caption_server import caption_server as doctor_looks
from promptecho.doctor.preflight import preflight_of
from promptecho.errors import PromptEchoError

SCRIPT = Path(__file__).with_name("caption_server.py")
KEY = "MADE_UP_KEY"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """24 images whose files are sent as they are, one that is not (transparent), and a torn one."""
    path = tmp_path_factory.mktemp("images")
    for index in range(24):
        Image.effect_noise((24 + index, 32), 50 + index).convert("RGB").save(path / f"{index:03d}.png")
    Image.new("RGBA", (40, 20), (200, 30, 40, 128)).save(path / "glass.png")
    (path / "torn.png").write_bytes((path / "000.png").read_bytes()[:200])
    return path


@contextlib.contextmanager
def serving(log: Path, *options: object):
    """The stand-in at an address; yields it."""
    port = free_port()
    command = [sys.executable, SCRIPT, "--port", port, "--log", log, *options]
    process = subprocess.Popen([*map(str, command)], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: not is_free(port))
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def wait_for(what, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def asked(log: Path) -> list[dict]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def spec(folder: Path, tmp_path: Path, server: dict, **options) -> ShardSpec:
    values = dict(
        vlm="shapes", images=str(folder), query="What is this?", shard=0, num_shards=1, out=tmp_path / "00000.h5",
        work=tmp_path / "work", settings=GenerationSettings(max_new_tokens=33, seed=5),
        server=CaptionServerSection(**server),
    )  # fmt: skip
    return ShardSpec(**(values | options))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_rows_and_what_is_sent(folder, tmp_path, monkeypatch, capsys):
    faults = dict(zip(range(6), ("400", "empty", "refused", "long", "nul", "500"), strict=True))
    (tmp_path / "faults.json").write_text(
        json.dumps({sha256(folder / f"{index:03d}.png"): fault for index, fault in faults.items()})
    )
    monkeypatch.setenv(KEY, "sk-of-this-test-alone")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")  # leads nowhere, least of all to this machine
    log = tmp_path / "asked.jsonl"
    with serving(log, "--faults", tmp_path / "faults.json", "--models", "org/one") as url:
        server = {"endpoint": url, "api_key_env": KEY, "request": {"top_k": 1}, "max_attempts": 2, "concurrency": 8}
        one = spec(folder, tmp_path, server, max_pixels=30 * 32)
        summary = caption_shard_by_server(one)
    rejected = {"empty": 1, "refused": 2, "server_error": 1, "unreadable_image": 1}
    assert summary["rejected"] == rejected and summary["captions"] == 21
    told = capsys.readouterr().err
    assert "001.png: the model wrote an empty caption" in told and "002.png: the model declined: I will not" in told
    assert "000.png: no caption: HTTP 400" in told and "005.png: no caption: HTTP 500" in told
    file = read_captions(one.out)
    assert file.source.vlm_revision == "as served" and file.source.generation == {
        "max_new_tokens": 33, "temperature": 0.0, "seed": 5, "max_pixels": 960, "answered_by": "org/one",
        "server": {"model": None, "request": {"top_k": 1}},
    }  # fmt: skip
    rows = {row.image_id: row for row in file.rows}
    assert [*rows] == sorted(path.name for path in folder.iterdir())
    assert rows["003.png"].finish_reason == "length" and rows["003.png"].n_tokens == 9
    assert rows["004.png"].caption == "ab" and rows["004.png"].finish_reason == "stop"
    assert all(row.image_sha256 == sha256(folder / name) for name, row in rows.items())
    sent = asked(log)
    assert {(one["model"], one["temperature"], one["max_tokens"], one["top_k"], one["text"]) for one in sent} == {
        ("org/one", 0.0, 33, 1, "What is this?")
    }
    assert all(one["key"] == "Bearer sk-of-this-test-alone" and 0 <= one["seed"] < 2**31 for one in sent)
    # No file is sent as it is but those of 24 to 30 x 32 pixels.
    whole = {sha256(folder / f"{index:03d}.png") for index in range(24) if 24 + index <= 30}
    assert {one["image"] for one in sent} & {sha256(path) for path in folder.iterdir()} == whole
    text = next(row.caption for name, row in rows.items() if name == "023.png")
    assert text not in {caption_of((folder / "023.png").read_bytes())} and text.startswith("A picture that begins")
    assert not list((tmp_path / "work").iterdir())  # the journal has gone with its work

    again = len(sent)
    assert caption_shard_by_server(one)["captions"] == 21  # the server is no more, and is not needed
    assert len(asked(log)) == again


def start(arguments: list[str]) -> subprocess.Popen:
    """A command as a process: these import no torch."""
    command = [sys.executable, "-m", "promptecho", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def command(folder: Path, place: Path, config: Path, *more: object) -> list[str]:
    return [
        "caption", "shard", "--config", str(config), "--images", str(folder), "--out", str(place / "00000.h5"),
        "--work", str(place / "work"), "--query", "What is this?", "--max-new-tokens", "33", "--seed", "5",
        *map(str, more),
    ]  # fmt: skip


def experiment(tmp_path: Path, server: dict | None) -> Path:
    path = tmp_path / "asks.yaml"
    shapes = {"path": "shapes"}
    captions = {"images": "somewhere", "num_shards": 1, "heldout": 2, "server": server}
    path.write_text(
        json.dumps({"models": {"t2i": shapes | {"family": "zimage"}, "vlm": shapes}, "captions": captions, "runs": {}})
    )
    return path


def test_sigkill_at_any_moment_asks_nothing_twice(folder, tmp_path):
    whole, killed, log = tmp_path / "whole", tmp_path / "killed", tmp_path / "asked.jsonl"
    with serving(tmp_path / "other.jsonl") as url:
        caption_shard_by_server(spec(folder, whole, {"endpoint": url}))
    with serving(log, "--delay", 0.05) as url:
        server = {"endpoint": url, "concurrency": 2}
        config, answered = experiment(tmp_path, server), set()
        for wanted in (1, 9):
            process, before = start(command(folder, killed, config)), len(asked(log))
            try:
                while len(asked(log)) <= wanted and process.poll() is None:
                    time.sleep(0.01)
            finally:
                process.kill()
                process.wait()
            assert not (killed / "00000.h5").exists()
            assert not answered & {one["image"] for one in asked(log)[before:]}
            answered = {sha256(folder / name) for name in journal(killed, "ok")}
        before = len(asked(log))
        caption_shard_by_server(spec(folder, killed, server))
    assert (killed / "00000.h5").read_bytes() == (whole / "00000.h5").read_bytes()
    assert not answered & {one["image"] for one in asked(log)[before:]} and len(answered) >= 5
    counts = Counter(one["image"] for one in asked(log))
    assert len(counts) == 25 and counts.total() <= 25 + 2 * 2  # those on their way at a kill are asked again


def journal(place: Path, status: str) -> set[str]:
    """Images of which a shard that is not finished has a reply."""
    files = (place / "work" / "00000.server").glob("*.jsonl")
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines() if line.endswith("}")]
    return {row["id"] for row in rows if row["status"] == status}


def own_server(*options: object) -> str:
    return shlex.join([sys.executable, str(SCRIPT), *map(str, options)]) + " --models {model} --port {port}"


def port_of(text: str) -> int | None:
    found = re.search(r"starting at port (\d+)", text)
    return int(found[1]) if found else None


def is_free(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) != 0


def test_a_server_of_the_job_ends_with_it(folder, tmp_path, capsys):
    log, said = tmp_path / "asked.jsonl", tmp_path / "logs" / "server.log"
    server = {"command": f"echo on $((1 + 1)) GPUs; {own_server('--log', log, '--slow-start', 0.3)}"}
    caption_shard_by_server(spec(folder, tmp_path, server, server_log=said))
    told = capsys.readouterr().err
    assert is_free(port_of(told)) and "answers after" in told
    lines = said.read_text().splitlines()
    assert str(SCRIPT) in lines[0] and lines[1:2] == ["on 2 GPUs"] and lines[2].startswith("loading /")
    source = read_captions(tmp_path / "00000.h5").source
    assert source.generation["answered_by"] == "vlm" and source.vlm_revision.startswith("files-")
    assert len(asked(log)) == 25 and asked(log)[0]["model"].endswith("/weights/vlm")
    counts = merge_shards([tmp_path / "00000.h5"], MergeSpec(tmp_path / "c.h5", tmp_path / "h.jsonl", 2))
    assert counts["training"] + counts["heldout"] == 25 and counts["rejected"] == {"unreadable_image": 1}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_of_the_job_ends_when_the_job_is_ended(folder, tmp_path, number):
    """Also what it has started and put into a session of its own, as the engines of some servers are."""
    log, config = tmp_path / "asked.jsonl", None
    inner = own_server("--log", log, "--delay", 0.3)
    config = experiment(tmp_path, {"command": f"setsid {inner} & wait", "concurrency": 2})
    process = start(command(folder, tmp_path, config))
    try:
        wait_for(lambda: len(asked(log)) > 3 or process.poll() is not None)
        process.send_signal(number)
        told = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    port = port_of(told)
    wait_for(lambda: is_free(port))
    assert not (tmp_path / "00000.h5").exists()
    if number == signal.SIGTERM:  # calls on their way were waited for
        begun, done = (journal(tmp_path, status) for status in ("begun", "ok"))
        assert begun == done and process.returncode == 128 + signal.SIGTERM


def test_a_server_that_ends_says_why_and_a_rerun_goes_on(folder, tmp_path):
    ends = "captions.server.command ended with exit code 7; its last lines: no such GPU; all of them: "
    with pytest.raises(PromptEchoError, match=ends):
        caption_shard_by_server(spec(folder, tmp_path, {"command": "echo no such GPU; exit 7 # {port}"}))

    faults, log = tmp_path / "faults.json", tmp_path / "asked.jsonl"
    faults.write_text(json.dumps({sha256(folder / "012.png"): "die"}))
    dies = spec(
        folder, tmp_path, {"command": own_server("--no-list", "--faults", faults, "--log", log), "concurrency": 1}
    )
    with pytest.raises(PromptEchoError, match="captions.server.command ended with exit code 3"):
        caption_shard_by_server(dies)
    assert len(journal(tmp_path, "ok")) == 12
    faults.write_text("{}")
    assert caption_shard_by_server(dies)["captions"] == 25
    assert len(asked(log)) == 25 + 1


def test_shards_of_one_node_have_servers_of_their_own(folder, tmp_path):
    config = experiment(tmp_path, {"command": own_server("--slow-start", 0.5)})
    shards = [start(command(folder, tmp_path / str(k), config, "--shard", k, "--num-shards", 2)) for k in range(2)]
    told = [shard.communicate(120)[1] for shard in shards]
    assert [shard.returncode for shard in shards] == [0, 0], told
    assert len({port_of(one) for one in told}) == 2
    rows = [row for k in range(2) for row in read_captions(tmp_path / str(k) / "00000.h5").rows]
    assert len(rows) == 26 and sum(row.rejected is None for row in rows) == 25


def test_a_server_that_is_not_there_or_has_several_models_is_told(folder, tmp_path):
    one = spec(folder, tmp_path, {"endpoint": f"http://127.0.0.1:{free_port()}/v1", "outage_s": 0.5})
    with pytest.raises(PromptEchoError, match=r"no answer within captions.server.outage_s 0.5 s \(connection refused"):
        caption_shard_by_server(one)
    with serving(tmp_path / "asked.jsonl", "--models", "a", "b") as url:
        with pytest.raises(PromptEchoError, match="server.model: say which of its models is to caption: a, b"):
            caption_shard_by_server(spec(folder, tmp_path, {"endpoint": url}))
        named = spec(folder, tmp_path, {"endpoint": url, "model": "b"})
        assert caption_shard_by_server(named)["captions"] == 25
    assert {sent["model"] for sent in asked(tmp_path / "asked.jsonl")} == {"b"}


def test_what_decides_a_caption_and_what_its_jobs_take(tmp_path):
    def with_server(**server) -> ExperimentConfig:
        path = experiment(tmp_path, server or None)
        path.write_text(path.read_text().replace('"vlm": {"path": "shapes"}', '"vlm": {"path": "a/vlm"}'))
        return load_experiment(path)

    here, there = with_server(command="x {port}"), with_server(endpoint="http://a:1/v1", concurrency=2)
    slices = [slice_digest(one, "caption") for one in (with_server(), here, there, with_server(command="y {port}"))]
    assert slices[1] == slices[2] == slices[3] != slices[0]
    assert slice_digest(with_server(command="x {port}", model="m"), "caption") not in slices
    assert "server" not in slice_value(with_server(), "caption")["captions"]
    assert takes_gpu(here, "caption") and not takes_gpu(there, "caption")
    asks = cluster_resources(there, "caption", False)
    assert (asks.gpus_per_node, asks.mem_mb) == (0, 8000)
    # A job that reads words loads the VLM all the same, and what was said of captions was said of a client.
    client = there.resources.model_copy(update={"caption": StageResources(mem_mb=2000, gpus_per_node=0)})
    reads = cluster_resources(as_reader(there.model_copy(update={"resources": client})), "caption", True)
    assert (reads.gpus_per_node, reads.mem_mb, reads.threads) == (1, 64_000, 8) and as_reader(here) is here


def test_the_preflight_looks_at_the_server(tmp_path):
    def told(**server) -> list[str]:
        config = load_experiment(experiment(tmp_path, server))
        preflight = replace(preflight_of(config, tmp_path / "asks.yaml", None, None), stages=frozenset({"caption"}))
        return [f"{one.severity}: {one.line}" for one in doctor_looks(preflight)]

    assert "problem" in told(command="no-such-program serve {port}")[0]
    assert "no program no-such-program" in told(command="A=1 no-such-program serve {port}")[0]
    assert told(command=f"{sys.executable} {{port}}")[0].startswith("fine")
    assert told(command="source there/activate && vllm serve {port}")[0].startswith("unchecked")
    assert "connection refused" in told(endpoint=f"http://127.0.0.1:{free_port()}/v1")[0]
    with serving(tmp_path / "asked.jsonl", "--no-list") as url:
        assert told(endpoint=url)[0].startswith(f"unchecked: captions.server.endpoint: {url}: HTTP 500")
    with serving(tmp_path / "asked.jsonl", "--models", "a", "b") as url:
        assert "has several models (a, b)" in told(endpoint=url)[0]
        assert "answers, and has b" in told(endpoint=url, model="b")[0]


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ({}, "give one of endpoint and command"),
        ({"endpoint": "http://a/v1", "command": "b {port}"}, "give one of endpoint and command"),
        ({"command": "vllm serve {model}"}, "command has no {port}"),
        ({"endpoint": "http://a/v1", "request": {"messages": []}}, "request.messages: not to be set here"),
    ],
)
def test_settings_that_make_no_sense_are_refused(server, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        CaptionServerSection(**server)
