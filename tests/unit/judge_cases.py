"""Questions and settings for tests of judges."""

from __future__ import annotations

import io
import json

import pytest
from judge_server import KEY
from PIL import Image
from pydantic import BaseModel, ConfigDict

from promptecho.config.judges import JudgeSection
from promptecho.judges.base import Question
from promptecho.judges.patience import Backoff

QUICK = Backoff(initial=0.001, longest=0.01, jitter=0.001, outage_s=0.5)
VARIABLES = {"gemini": "GEMINI_API_KEY", "openai": "OPENAI_API_KEY"}
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


def set_keys(monkeypatch) -> None:
    """A key for each provider, and no proxy before servers on this machine."""
    for name in (*PROXIES, "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in VARIABLES.values():
        monkeypatch.setenv(name, KEY)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """For every test of a module that imports it: both providers' packages, and their keys."""
    pytest.importorskip("openai")
    pytest.importorskip("google.genai")
    set_keys(monkeypatch)


class Verdict(BaseModel):
    """What the judge of the tests answers."""

    model_config = ConfigDict(extra="forbid")

    answer: str


def parse(text: str) -> str:
    return Verdict.model_validate_json(text).answer


def png(index: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (index % 256, index // 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def write_png(folder, index: int = 0):
    path = folder / f"{index:05d}.png"
    path.write_bytes(png(index))
    return path


def questions(count: int, folder, **values) -> list[Question]:
    """`count` questions "q0", "q1", ... about one image file each."""
    return [
        Question(
            f"prompt {index:05d}",
            f"q{index}",
            (write_png(folder, index),),
            parse,
            **({"schema": Verdict, "template": "t1"} | values),
        )
        for index in range(count)
    ]


def section(kind: str, server=None, **values) -> JudgeSection:
    """Settings of a judge of `kind`, at `server` where one is given."""
    values = {"kind": kind, "model": "judge-1.5", "timeout_s": 10.0, "max_output_tokens": 64} | values
    if server is not None:
        values["endpoint"] = server.endpoint(kind)
    return JudgeSection(**values)


def rows(folder) -> list[dict]:
    """All lines of all journals."""
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def ended(folder) -> list[dict]:
    return [row for row in rows(folder) if row["status"] != "begun"]
