"""Servers that break off, refuse, or hold another model than before: nothing of that passes for a finished shard."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from promptecho.captions.merge import MergeSpec, merge_shards
from promptecho.captions.server_shard import caption_shard_by_server
from promptecho.captions.shard_spec import GenerationSettings, ShardSpec
from promptecho.captions.shard_state import fit_image
from promptecho.captions.store import read_captions
from promptecho.config.caption_server import CaptionServerSection
from promptecho.doctor.caption_server import _of_endpoint
from promptecho.errors import PromptEchoError


class Faulty(ThreadingHTTPServer):
    """A server in this process. `answers[n]` says what it does at the n-th question, the last one from there on."""

    daemon_threads = True
    answers: list[str]
    model, asked, lists = "vlm", 0, True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Faulty

    def log_message(self, *_):
        pass

    def do_GET(self):
        if not self.server.lists:
            self._send(403, {"error": {"message": "this key may not list models"}})
            return
        self._send(200, {"object": "list", "data": [{"id": self.server.model}]})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        how = self.server.answers[min(self.server.asked, len(self.server.answers) - 1)]
        self.server.asked += 1
        if how == "400":
            self._send(400, {"error": {"message": "context too long"}})
        elif how == "html":
            self._send(200, "<html>please log in</html>", "text/html")
        elif how == "drop":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        else:
            message = {"role": "assistant", "content": "A picture of a"}
            reply = {"id": "1", "object": "chat.completion", "created": 1, "model": self.server.model}
            usage = {"prompt_tokens": 70, "completion_tokens": 9, "total_tokens": 79}
            choices = [{"index": 0, "finish_reason": how, "message": message}]
            self._send(200, reply | {"choices": choices, "usage": usage})

    def _send(self, status: int, value: object, kind: str = "application/json") -> None:
        data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def serve() -> Iterator[Callable[..., Faulty]]:
    with contextlib.ExitStack() as stack:

        def begin(*answers: str) -> Faulty:
            server = stack.enter_context(Faulty(("127.0.0.1", 0), Answers))
            server.answers = [*answers]
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            stack.callback(server.shutdown)
            return server

        yield begin


def shard(place: Path, server: Faulty, n: int, k: int = 0, shards: int = 1, **options) -> ShardSpec:
    folder = place / "images"
    if not folder.exists():
        folder.mkdir(parents=True)
        for index in range(n):
            Image.effect_noise((24 + index, 32), 50 + index).convert("RGB").save(folder / f"{index:03d}.png")
    section = {"endpoint": server.url, "concurrency": 1, "outage_s": 0.5, "max_attempts": 2} | options
    return ShardSpec(
        vlm="shapes", images=str(folder), query="What?", shard=k, num_shards=shards, out=place / f"{k:05d}.h5",
        work=place / "work", settings=GenerationSettings(max_new_tokens=33, seed=5),
        server=CaptionServerSection(**section),
    )  # fmt: skip


@pytest.mark.parametrize("how", ["drop", "html"])
def test_an_outage_that_accepts_or_says_anything_rejects_no_image(tmp_path, serve, how):
    server = serve("stop", how)
    one = shard(tmp_path, server, 4, concurrency=3)
    with pytest.raises(PromptEchoError, match=r"outage: no reply for 0.5 s.*; 1 of 4 images are captioned, and stay"):
        caption_shard_by_server(one)
    assert not one.out.exists()
    server.answers = ["stop"]
    assert caption_shard_by_server(one)["captions"] == 4


@pytest.mark.parametrize("n", [2, 5])
def test_images_that_wrong_settings_had_refused_are_asked_about_again(tmp_path, serve, n):
    server = serve("400")
    one = shard(tmp_path, server, n)
    with pytest.raises(PromptEchoError, match=r"HTTP 400.*context too long.*: correct captions\.server"):
        caption_shard_by_server(one)
    assert not one.out.exists()
    server.answers = ["stop"]
    assert caption_shard_by_server(one)["captions"] == n and read_captions(one.out).rows[0].rejected is None


def merged(place: Path) -> dict:
    spec = MergeSpec(place / "c.h5", place / "h.jsonl", 0, max_rejected_share=0.5)
    return merge_shards(sorted(place.glob("0*.h5")), spec)


def test_a_shard_without_an_answer_is_merged_with_others_and_one_of_another_model_is_not(tmp_path, serve):
    server = serve("stop")
    specs = [shard(tmp_path, server, 3, k, 3) for k in range(3)]
    (tmp_path / "images" / "000.png").write_bytes(b"torn")
    for one in specs:
        caption_shard_by_server(one)
    assert merged(tmp_path)["training"] == 2
    assert read_captions(tmp_path / "c.h5").source.generation["answered_by"] == "vlm"
    specs[2].out.unlink()
    server.model = "other"
    caption_shard_by_server(specs[2])
    with pytest.raises(PromptEchoError, match=r"00002\.h5: answered_by is 'other', but 'vlm' in .*00001\.h5; caption"):
        merged(tmp_path)


def test_a_shard_that_two_models_answered_is_refused(tmp_path, serve):
    server = serve("stop", "drop")
    one = shard(tmp_path, server, 3)
    with pytest.raises(PromptEchoError, match="outage"):
        caption_shard_by_server(one)
    server.answers, server.model = ["stop"], "other"
    with pytest.raises(PromptEchoError, match=r"00000\.server: several models have answered .* \(other, vlm\); name"):
        caption_shard_by_server(one)
    assert not one.out.exists()


def test_a_caption_that_was_broken_off_is_asked_for_again(tmp_path, serve):
    server = serve("abort", "stop")
    assert caption_shard_by_server(shard(tmp_path, server, 2, outage_s=60))["captions"] == 2
    assert server.asked == 3


def test_a_key_that_may_not_list_models_may_caption(tmp_path, serve):
    server = serve("stop")
    server.lists = False
    with pytest.raises(PromptEchoError, match="may not do this"):
        caption_shard_by_server(shard(tmp_path, server, 1))
    named = shard(tmp_path, server, 1, model="vlm")
    assert caption_shard_by_server(named)["captions"] == 1
    assert _of_endpoint(named.server, server.url, "shapes").severity == "unchecked"


def test_files_that_cannot_be_read_are_told_each_by_its_name(tmp_path, serve, capsys):
    one = shard(tmp_path, serve("stop"), 3)
    for name in ("000.png", "002.png"):
        (tmp_path / "images" / name).unlink()
        (tmp_path / "images" / name).symlink_to(tmp_path / f"gone-{name}")
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"images/{index:03d}.png\n" for index in range(3)))
    assert caption_shard_by_server(replace(one, images=str(listed)))["rejected"] == {"unreadable_image": 2}
    told = capsys.readouterr().err
    assert all(f"rejected: {tmp_path / 'images' / name}" in told for name in ("000.png", "002.png"))


def test_a_file_that_goes_after_it_was_read_is_named(tmp_path, serve, monkeypatch):
    def read_and_remove(item, *settings):
        image = fit_image(item, *settings)
        item.path.unlink()
        return image

    one = shard(tmp_path, serve("stop"), 1)
    monkeypatch.setattr("promptecho.captions.server_shard.fit_image", read_and_remove)
    with pytest.raises(PromptEchoError, match=r"000\.png: cannot be read any more \(No such file"):
        caption_shard_by_server(one)
