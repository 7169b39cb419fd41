"""The record of calls: what a key depends on, and journals that survive kills and damage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judge_cases import Verdict, section
from pydantic import BaseModel

from promptecho.errors import DataError
from promptecho.judges.base import Question
from promptecho.judges.keys import ImageFacts, record_key
from promptecho.judges.record import Record

ROOT = Path(__file__).parents[2]
Other = type("Other", (BaseModel,), {"__annotations__": {"score": int}})

# Everything that decides an answer, each with values that must not be mixed up.
PARTS = {
    "kind": st.sampled_from(["gemini", "openai", "local"]),
    "model": st.sampled_from(["a", "b", "ab"]),
    "template": st.sampled_from(["", "a", "b"]),
    "system": st.sampled_from(["", "a", "b"]),
    "text": st.sampled_from(["", "a", "b"]),
    "images": st.lists(st.sampled_from(["0" * 64, "1" * 64]), max_size=2).map(tuple),
    "format": st.sampled_from([("png", 95), ("jpeg", 95), ("jpeg", 80)]),
    "temperature": st.sampled_from([0.0, 0.3, 1.0]),
    "request": st.sampled_from([{}, {"seed": 1}, {"seed": None}]),
    "structured_output": st.sampled_from(["json_schema", "json_object", "none"]),
    "schema": st.sampled_from([None, Verdict, Other]),
    "repeat": st.integers(0, 2),
}


def key(parts, **unimportant):
    format_, quality = parts["format"]
    settings = section(
        parts["kind"], model=parts["model"], request=parts["request"] if parts["kind"] != "local" else {},
        structured_output=parts["structured_output"],
        image_format=format_, jpeg_quality=quality, **unimportant,
    )  # fmt: skip
    question = Question(
        "some id", parts["text"], (), str, system=parts["system"], schema=parts["schema"], template=parts["template"],
        temperature=parts["temperature"], repeat=parts["repeat"],
    )  # fmt: skip
    return record_key(settings, parts["model"], question, tuple(ImageFacts(sha, 1, 1) for sha in parts["images"]))


@given(st.fixed_dictionaries(PARTS), st.fixed_dictionaries(PARTS))
def test_keys_are_equal_exactly_where_all_parts_are(first, second):
    for parts in (first, second):
        parts["request"] = {} if parts["kind"] == "local" else parts["request"]
    assert (key(first) == key(second)) == (first == second)


@given(st.fixed_dictionaries(PARTS), st.data())
def test_any_one_part_changes_the_key(parts, data):
    name = data.draw(st.sampled_from(sorted(PARTS)))
    changed = parts | {name: data.draw(PARTS[name].filter(lambda value: value != parts[name]))}
    if parts["kind"] != "local" or changed["kind"] != "local" or name != "request":
        assert key(parts) != key(changed)


@given(st.fixed_dictionaries(PARTS))
def test_what_decides_no_answer_is_not_in_the_key(parts):
    other = dict(
        concurrency=1,
        timeout_s=1.0,
        max_attempts=1,
        max_failed_share=0.5,
        max_calls=3,
        temperature=None,
        requests_per_minute=5.0,
        max_output_tokens=9,
    )
    if parts["kind"] != "local":
        other["endpoint"] = "http://node8:8000/v1"
    assert key(parts) == key(parts, **other)


def test_a_temperature_of_the_settings_replaces_the_questions_own():
    question = Question("p", "q", (), str, temperature=0.3)
    keys = [record_key(section("openai", temperature=t), "m", question, ()) for t in (None, 0.3, 0.7)]
    assert keys[0] == keys[1] != keys[2]


def add(record, key="k", status="ok", **values):
    with record.transaction():
        begun = record.begin(key, "prompt 1", 1, input_tokens=9, output_tokens=8, guess=5)
    record.end(begun, status, **({"text": "yes", "input_tokens": 3, "output_tokens": 2} | values))


def journal(folder: Path) -> Path:
    [path] = folder.glob("*.jsonl")
    return path


def test_replies_come_back(tmp_path):
    with Record(tmp_path / "a", "j") as record:
        assert not (tmp_path / "a").exists(), "reading makes nothing"
        add(record, status="unparsable", text="line\nbreak \u2028 é")
        add(record)
        add(record, key="other", status="refused", reason="SAFETY")
        assert [row.text for row in record.replies("k")] == ["line\nbreak \u2028 é", "yes"]
    again = Record(tmp_path / "a", "j")
    assert [row.text for row in again.replies("k")] == ["line\nbreak \u2028 é", "yes"]
    assert again.replies("other")[0].reason == "SAFETY" and not again.replies("none")
    assert (again.calls, again.input_tokens, again.output_tokens) == (3, 9, 6)
    assert Record(tmp_path / "a", "another judge").calls == 0


def test_a_cut_off_call_counts_as_charged_once_its_process_is_dead(tmp_path):
    record = Record(tmp_path, "j")
    with record.transaction():
        record.begin("k", "prompt 1", 1, input_tokens=9, output_tokens=8, guess=5)
    other = Record(tmp_path, "j")
    assert other.reserved() == (1, 9, 8) and other.asked_elsewhere("k") and other.input_tokens == 0
    assert not record.asked_elsewhere("k")
    record.close()
    other.refresh()
    assert other.reserved() == (0, 0, 0) and not other.asked_elsewhere("k")
    assert (other.calls, other.input_tokens, other.output_tokens) == (1, 9, 8)


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_torn_last_line_is_dropped(tmp_path, cut):
    with Record(tmp_path, "j") as record:
        add(record)
        add(record, key="last")
    path = journal(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    again = Record(tmp_path, "j")
    assert len(again.replies("k")) == 1 and not again.replies("last")
    add(again, key="last")
    again.close()
    assert len(Record(tmp_path, "j").replies("last")) == 1


@pytest.mark.parametrize("line", ["{", "[]", '{"call": 1}', "\0\0\0", ""])
def test_other_damage_is_an_error_that_names_the_line(tmp_path, line):
    with Record(tmp_path, "j") as record:
        add(record)
    path = journal(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, lines[1]]) + "\n")
    with pytest.raises(DataError, match=rf"{path.name}:2: damaged line"):
        Record(tmp_path, "j")


def test_what_another_process_writes_is_seen(tmp_path):
    first, second = Record(tmp_path, "j"), Record(tmp_path, "j")
    add(first)
    assert not second.replies("k")
    second.refresh()
    assert len(second.replies("k")) == 1
    add(second, key="b")
    add(first, key="c")
    first.close()
    second.refresh()
    first.refresh()
    assert len(second.replies("c")) == len(first.replies("b")) == 1
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


RACE = """
import pathlib, sys, time
from promptecho.judges.record import Record
here, me = pathlib.Path(sys.argv[1]), sys.argv[2]
(here / f"{me}.ready").touch()
while len(list(here.glob("*.ready"))) < 3:
    time.sleep(0.001)
with Record(here, "j") as record:
    while True:
        with record.transaction():
            if record.calls >= 60:
                break
            time.sleep(0.002)
            begun = record.begin("k", "id", 1, input_tokens=1, output_tokens=1, guess=1)
        record.end(begun, "failed")
"""


def test_processes_that_race_share_one_count(tmp_path):
    racers = [subprocess.Popen([sys.executable, "-c", RACE, str(tmp_path), str(n)], cwd=ROOT) for n in range(3)]
    assert [racer.wait() for racer in racers] == [0, 0, 0]
    assert Record(tmp_path, "j").calls == 60 and len(list(tmp_path.glob("*.jsonl"))) > 1


def test_a_full_disk_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write .*; free space or fix permissions"):
        add(Record(tmp_path / "file" / "a", "j"))


def test_a_line_holds_what_is_said(tmp_path):
    with Record(tmp_path, "j") as record:
        add(record, model_version="v1")
    begun, end = (json.loads(line) for line in journal(tmp_path).read_text().splitlines())
    assert set(begun) == {
        "call",
        "judge",
        "key",
        "id",
        "attempt",
        "status",
        "time",
        "input_tokens",
        "output_tokens",
        "guess",
        "limit",
        "order",
        "format",
    }
    assert end["call"] == begun["call"] and end["text"] == "yes" and end["model_version"] == "v1"
