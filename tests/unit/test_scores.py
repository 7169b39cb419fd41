"""Score files and provenance."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import promptecho
from promptecho.errors import DataError
from promptecho.provenance import Provenance, git_commit
from promptecho.scores import ScoreItem, Scores, raw_path, read_scores, write_scores


def provenance(**changed):
    values = {
        "experiment": "shapes",
        "run": "promptecho-s1",
        "step": 10,
        "benchmark": "geneval",
        "scorer": "geneval",
        "backend": "oracle",
        "mode": "official",
        "judge_model": "oracle",
        "n": 2,
        "failures": 1,
    }
    return Provenance(**(values | changed))


def scores():
    items = [
        ScoreItem(prompt_id="00000", image_index=0, group="colors", outcome=1.0, failed=False),
        ScoreItem(prompt_id="00000", image_index=1, group="colors", outcome=None, failed=True),
    ]
    return Scores(provenance=provenance(), summary={"overall": 1.0}, items=items)


def test_a_score_file_survives_a_round_trip(tmp_path):
    path = tmp_path / "scores" / "geneval" / "promptecho-s1" / "10.json"
    write_scores(path, scores())
    assert read_scores(path) == scores()
    assert raw_path(path).name == "10.raw.jsonl"
    assert set(json.loads(path.read_text())) == {"schema_version", "provenance", "summary", "items"}


def test_scores_without_a_schema_version_are_read_and_newer_ones_refused_in_one_line(tmp_path):
    path = tmp_path / "10.json"
    write_scores(path, scores())
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in content.items() if key != "schema_version"}))
    assert read_scores(path) == scores()
    path.write_text(json.dumps(content | {"schema_version": 9, "keys": "that this version does not know"}))
    with pytest.raises(DataError) as error:
        read_scores(path)
    assert str(error.value) == (
        f"{path}: schema_version is 9, this version reads up to 1: a newer version of promptecho wrote it; read it "
        "with that one"
    )


def spoil(keys, value):
    def change(content):
        inner = content
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        return content

    return change


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        (spoil(["schema_version"], 0), "schema_version is 0"),
        (spoil(["schema_version"], "1"), "schema_version is '1'"),
        (spoil(["schema_version"], True), "schema_version is True"),
        (spoil(["items", 0, "outcome"], None), "items.0"),
        (spoil(["items", 1, "outcome"], 0.0), "a failed item has outcome null"),
        (spoil(["items", 1, "image_index"], 0), "prompt 00000, image 0 occurs 2 times"),
        (spoil(["items"], []), "items"),
        (spoil(["provenance", "n"], 3), "provenance tells"),
        (spoil(["provenance", "step"], -1), "provenance.step"),
        (spoil(["provenance", "colour"], "red"), "provenance.colour"),
        (lambda content: [content], "the file"),
    ],
)
def test_a_corrupt_score_file_is_named(tmp_path, change, culprit):
    path = tmp_path / "10.json"
    write_scores(path, scores())
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(DataError) as error:
        read_scores(path)
    assert str(error.value).startswith(f"{path}: ")
    assert culprit in str(error.value)
    assert "\n" not in str(error.value)


def test_a_torn_score_file_is_named(tmp_path):
    path = tmp_path / "10.json"
    write_scores(path, scores())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="10.json: not valid JSON"):
        read_scores(path)


def _commit_seen_by(package: Path, environment: dict[str, str] | None = None) -> str:
    """What a process that uses the package at this place takes for its commit."""
    code = "from promptecho.provenance import git_commit; print(git_commit())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=package.parent,
        env={**os.environ, "PYTHONPATH": str(package.parent), **(environment or {})},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A git checkout that holds copies of the few files the question needs."""
    root = tmp_path / "checkout"
    package = root / "promptecho"
    package.mkdir(parents=True)
    for name in ("__init__.py", "provenance.py"):
        (package / name).write_bytes((Path(promptecho.__file__).parent / name).read_bytes())
    git = ["git", "-C", str(root), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "start"]):
        subprocess.run([*git, *arguments], check=True)
    return root


def test_git_commit_of_a_checkout_and_of_a_changed_one(checkout):
    head = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    commit = head.stdout.strip()
    assert _commit_seen_by(checkout / "promptecho") == commit
    (checkout / "unrelated.txt").write_text("x")
    assert _commit_seen_by(checkout / "promptecho") == commit
    with open(checkout / "promptecho" / "__init__.py", "a") as file:
        file.write("# changed\n")
    assert _commit_seen_by(checkout / "promptecho") == f"{commit}-dirty"


def test_git_commit_is_unknown_for_a_package_inside_another_checkout_or_without_git(checkout):
    inside = checkout / ".venv" / "site-packages"
    inside.mkdir(parents=True)
    (checkout / "promptecho").rename(inside / "promptecho")
    assert _commit_seen_by(inside / "promptecho") == "unknown"
    assert _commit_seen_by(inside / "promptecho", {"PATH": str(checkout / "nothing")}) == "unknown"


def test_git_commit_here_never_fails():
    assert git_commit()
