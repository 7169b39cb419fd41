"""Edits of captions that a judge writes, from a real server on loopback."""

from __future__ import annotations

import json

from judge_cases import environment  # noqa: F401
from judge_server import serving
from PIL import Image

from promptecho.audit.edits import ABSENT
from promptecho.audit.judge_edits import judge_pairs
from promptecho.audit.material import captioned_file
from promptecho.config.judges import JudgeSection


def answer(text: str) -> str:
    changed = "A blue car." if "colour" in text else "It is another day and all is new." if "object by" in text else ""
    return json.dumps({"changed": changed})


def test_edits_are_taken_counted_and_never_asked_twice(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    captioned = [captioned_file(tmp_path / "a.png", "a.png", "A red car.")]
    with serving(answer=answer) as server:
        judge = JudgeSection(kind="openai", model="m", endpoint=server.endpoint("openai"))
        made = judge_pairs(captioned, "here", judge, tmp_path / "answers")
        calls = len(server.log)
        again = judge_pairs(captioned, "here", judge, tmp_path / "answers")
        assert len(server.log) == calls == 7
    assert [pair.false.text for pair in made.pairs] == [pair.false.text for pair in again.pairs] == ["A blue car."]
    assert made.edits["object"] == {"the judge changed more than one fact": 1}
    assert made.edits["letter"] == {ABSENT: 1}
