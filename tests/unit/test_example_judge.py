"""A kind of judge from outside, end to end: the example's folder, copied elsewhere, and a real server on loopback.

All of it runs as commands in another folder than the checkout's, and nothing of the project changes for it.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import ended, run
from ollama_server import ollama
from PIL import Image

from promptecho.benchmarks.textocr.layout import TextOcrLayout
from promptecho.config import load_experiment, slice_digest
from promptecho.config.judge_kinds import JUDGE_KINDS, JudgeKind
from promptecho.errors import ConfigError
from promptecho.files import read_json, write_jsonl

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "judge"
PROMPTS = [{"data_id": name, "prompt": f'the word "{name}"', "text": [name]} for name in ("one", "two", "three")]


def reads(text: str) -> str:
    return json.dumps({"expected_text": "x", "found_text": "x", "reasoning": "read", "score": int('"two"' not in text)})


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder of its own with the example in it, which no other test has loaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(JUDGE_KINDS, "named", {})
    shutil.copytree(EXAMPLE, tmp_path / "mine")
    yield tmp_path
    sys.modules.pop("ollama_judge", None)
    importlib.invalidate_caches()


def experiment(folder: Path, judge: str, name: str = "e") -> str:
    """An experiment that has text in images judged; `judge`: settings of its judge."""
    text = (folder / "mine/shapes-ollama.yaml").read_text()
    head, _, _ = text.partition("judges:\n")
    (folder / f"mine/{name}.yaml").write_text(
        f"{head}judges:\n  models:\n    mine: {{{judge}}}\n"
        "image_sets:\n  text: {benchmark: textocr, prompts: p.jsonl, images_per_prompt: 1}\n"
        "benchmarks:\n  text: {image_set: text, scorer: textocr, backend: judge, judge: mine}\n"
        "evaluate: [{benchmark: text}]\ntables: [text]\n"
    )
    return f"mine/{name}.yaml"


def images(folder: Path) -> None:
    write_jsonl(folder / "p.jsonl", PROMPTS)
    layout = TextOcrLayout(folder / "p.jsonl", folder / "images", 1)
    (folder / "images").mkdir()
    for index in range(len(PROMPTS)):
        Image.new("RGB", (64, 64), (80 * index, 0, 0)).save(layout.image_path(index, 0))
    layout.describe(range(len(PROMPTS)))


def test_the_example_is_listed_asks_a_server_and_scores(folder):
    images(folder)
    listed = json.loads(ended(["list", "judges", "--config", "mine/shapes-ollama.yaml", "--json"])[0])
    assert [one["name"] for one in listed] == ["gemini", "openai", "local", "ollama"]
    assert listed[-1]["needs"] == "network" and listed[-1]["from"] == "mine/shapes-ollama.yaml: plugins.0"
    with ollama(reads, {"three": 503}) as (address, asked):
        settings = f'kind: ollama, model: "made-up:7b", endpoint: "{address}", request: {{think: false}}'
        config = experiment(folder, settings)
        words = ["--config", config, "--benchmark", "text", "--images", "images", "--prompts", "p.jsonl"]
        words += ["--answers", "answers"]
        run(["judge", *words, "--out", "judged.json"])
        assert len(asked) == 4  # three questions, one of them a second time
        first = asked[0]
        assert (first["path"], first["key"], first["model"]) == ("/api/chat", None, "made-up:7b")
        assert first["think"] is False and first["options"] == {"temperature": 0.0, "num_predict": 2048}
        assert len(first["messages"][-1]["images"]) == 1 and first["format"]["properties"]["score"]["type"] == "integer"
        score = ["score", *words, "--experiment", "e", "--run", "base", "--step", "0", "--out", "s/0.json"]
        run(score)
        assert len(asked) == 4  # what was answered is on record
    found = read_json(folder / "s/0.json")
    assert found["summary"]["overall"] == pytest.approx(2 / 3)
    assert found["provenance"]["judge_model"] == "made-up:7b"
    assert found["provenance"]["judge_versions"] == {"made-up:7b-q4": 3}
    run(score)  # without a server


@pytest.mark.parametrize(
    ("judge", "told"),
    [
        ("kind: olama, model: m", "judges.models.mine.kind: input should be 'gemini'"),
        ("kind: olama, model: m", "did you mean ollama?"),
        ("kind: ollama, model: m, request: {thnk: true}", "request.thnk: Extra inputs are not permitted"),
        ("kind: ollama, model: m, request: {think: 3}", "request.think: Input should be a valid boolean"),
    ],
)
def test_mistakes_are_told_as_for_our_own(folder, judge, told):
    with pytest.raises(ConfigError) as caught:
        load_experiment(experiment(folder, judge))
    assert told in str(caught.value)


def test_its_version_decides_what_is_asked_again(folder):
    from promptecho.judges.base import Question
    from promptecho.judges.keys import record_key

    config = load_experiment(experiment(folder, "kind: ollama, model: m"))
    settings, question = config.judges.models["mine"], Question("q", "text", (), str)

    def identity(version: int) -> tuple[str, str]:
        object.__setattr__(JUDGE_KINDS.named["ollama"].thing, "version", version)
        return record_key(settings, "m", question, ()), slice_digest(config, "score", benchmark="text")

    first, raised = identity(1), identity(2)
    assert first[0] != raised[0] and first[1] != raised[1] and identity(1) == first


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "My judge"}, "name 'My judge': take lower-case letters"),
        ({"build": "Judge"}, "build 'Judge': expected MODULE:OBJECT"),
        ({"version": 0}, "version 0: count from 1"),
        ({"request": dict}, "request: must be a subclass"),
        ({"in_process": True, "provider": "http://x"}, "neither provider nor key_variable"),
    ],
)
def test_a_descriptor_that_cannot_be_is_refused(changes, told):
    with pytest.raises(ValueError, match="JudgeKind: ") as caught:
        JudgeKind(**{"name": "mine", "summary": "", "build": "mine:Judge", **changes})
    assert told in str(caught.value)
