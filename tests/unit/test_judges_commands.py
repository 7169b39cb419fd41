"""A benchmark of 150 pairs through the commands: judge with every kind of trouble, then score and tables without key
or network; and what tables say of judges."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from densealign_world import write_pairs
from judge_cases import VARIABLES
from judge_server import KEY, serving
from tables_world import densealign
from typer.testing import CliRunner

from promptecho.cli import app
from promptecho.errors import DataError, PromptEchoError
from promptecho.tables.collect import find_score_files, read_score_files
from promptecho.tables.compare import check_comparable, check_versions, comparison
from promptecho.tables.densealign import DENSEALIGN

ROOT = Path(__file__).parents[2]
COUNT = 150


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"), COUNT)


def run(*words) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=True)
    if isinstance(done.exception, PromptEchoError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def experiment(path: Path, endpoint: str, kind: str, share: float, **judge) -> Path:
    value = yaml.safe_load((ROOT / "config/experiments/shapes.yaml").read_text())
    settings = {"kind": kind, "model": "judge-1.5", "endpoint": endpoint, "max_output_tokens": 64, **judge}
    value["judges"] = {"models": {"one": settings}, "outage_s": 30}
    value["benchmarks"]["densealign"] = {
        "image_set": "heldout", "scorer": "densealign", "backend": "judge", "judge": "one", "max_failed_share": share,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(value))
    return path


@pytest.mark.parametrize("kind", ["gemini", "openai"])
def test_every_trouble_ends_in_a_table_that_tells_it(kind, world, tmp_path, monkeypatch):
    pytest.importorskip("openai")
    pytest.importorskip("google.genai")
    for name in VARIABLES.values():
        monkeypatch.setenv(name, KEY)
    prompts, candidate, baseline = world
    seen: list[list] = []
    faults = {3: "refusal", 20: "refusal", 40: "safety", 70: "400", 90: "thinking", 110: "thinking"}

    def plan(text, nth):
        images = server.log[-1]["images"]  # captions may be equal; one call at a time
        if images not in seen:
            seen.append(images)
        fault = faults.get(seen.index(images))
        return None if fault == "thinking" and server.log[-1]["limit"] > 64 else fault

    def answer(text):
        return json.dumps({"reasoning": "", "preference": ("image_a", "image_b", "tie")[len(text) % 3]})

    images = ("--images", candidate, "--baseline", baseline, "--prompts", prompts, "--benchmark", "densealign")
    answers = ("--answers", tmp_path / "answers")
    score = tmp_path / "shapes/scores/densealign/r/40.json"
    told = ("--out", score, "--experiment", "shapes", "--run", "r", "--step", 40)
    with serving(plan=plan, answer=answer) as server:
        asking = dict(kind=kind, endpoint=server.endpoint(kind), concurrency=1)
        strict = experiment(tmp_path / "strict.yaml", share=0.035, **asking)
        with pytest.raises(PromptEchoError, match=r" of \d+ questions failed .*max_failed_share 0.035 of all 150"):
            run("judge", *images, *answers, "--config", strict, "--out", tmp_path / "judged.json")
        file = experiment(tmp_path / "shapes.yaml", share=0.05, **asking)
        facts = json.loads(run("judge", *images, *answers, "--config", file, "--out", tmp_path / "j.json", "--json"))
        assert facts["unanswered"] == {"HTTP 400": 1, "cut": 2, "refused": 3} and facts["failures"] == 6
        assert facts["versions"] == {"judge-1.5-001": 144}
        calls = len(server.log)
        assert calls <= COUNT + 2, "the poisoned question is asked again as long as there is no result; nothing is paid"
    for name in VARIABLES.values():
        monkeypatch.delenv(name)
    run("score", *images, *answers, "--config", file, *told)
    run("judge", *images, *answers, "--config", file, "--out", tmp_path / "j.json")
    with pytest.raises(DataError, match="6 of 150 items failed, more than the 1.0% allowed"):
        run("tables", "--table", "densealign", "--scores", score, "--print")
    share = ("--max-failures", "shapes/densealign=0.05")
    table = json.loads(run("tables", "--table", "densealign", "--scores", score, *share, "--json"))
    assert any("1 HTTP 400, 2 cut at max_output_tokens, 3 refused by the judge" in note for note in table["footnotes"])
    assert any("judge-1.5 (version judge-1.5-001)" in note for note in table["footnotes"])
    for name in VARIABLES.values():
        monkeypatch.setenv(name, KEY)
    with serving(plan=plan, answer=answer) as server:  # the server moved, and the limit was raised
        asking |= {"endpoint": server.endpoint(kind), "max_output_tokens": 128}
        raised = experiment(tmp_path / "raised.yaml", share=0.05, **asking)
        facts = json.loads(run("judge", *images, *answers, "--config", raised, "--out", tmp_path / "j.json", "--json"))
        assert facts["unanswered"] == {"HTTP 400": 1, "refused": 3} and len(server.billed) == 2


def table(root: Path, **values):
    files = read_score_files(find_score_files([root], "densealign"), "densealign")
    return comparison(DENSEALIGN, files, name="x", **values)


def test_versions_of_a_judge_that_are_mixed_are_told_or_refused(tmp_path):
    one, two = ({f"gpt-4o-{date}": 60} for date in ("2024-08-06", "2024-11-20"))
    densealign(tmp_path, "a", 40, 0.5, 0.2, judge_versions=one)
    same = densealign(tmp_path, "b", 40, 0.5, 0.2, judge_versions=one)
    assert table(tmp_path / "zimage").warnings == []
    densealign(tmp_path, "b", 40, 0.5, 0.2, judge_versions=two)
    [warning] = table(tmp_path / "zimage").warnings
    assert "gpt-4o-2024-08-06: a @ 40; gpt-4o-2024-11-20: b @ 40" in warning
    # Scores of earlier versions have it in the raw records alone.
    densealign(tmp_path, "b", 40, 0.5, 0.2)
    same.with_suffix(".raw.jsonl").write_text('{"x": 1, "model_version": "gpt-4o-2024-11-20"}\n{"model_version": ""}\n')
    files = read_score_files(find_score_files([tmp_path / "zimage"], "densealign"), "densealign")
    assert table(tmp_path / "zimage").warnings == [warning]
    with pytest.raises(DataError, match="several versions .* judges.mixed_versions is refuse"):
        check_versions(files)


def test_orders_of_messages_that_are_mixed_are_told(tmp_path):
    densealign(tmp_path, "a", 40, 0.5, 0.2)  # of an earlier version
    densealign(tmp_path, "b", 40, 0.5, 0.2, judge_orders={"official": 60})
    [warning] = table(tmp_path / "zimage").warnings
    assert "images_first: a @ 40; official: b @ 40" in warning
    densealign(tmp_path, "b", 40, 0.5, 0.2, judge_orders={"images_first": 60})
    assert table(tmp_path / "zimage").warnings == []


def test_scores_of_a_judge_that_moved_belong_together(tmp_path):
    densealign(tmp_path, "a", 40, 0.5, 0.2, judge_model="m@127.0.0.1:33397")
    densealign(tmp_path, "b", 40, 0.5, 0.2, judge_model="m")
    check_comparable(read_score_files(find_score_files([tmp_path / "zimage"], "densealign"), "densealign"))
    assert any("judged by: m." in note for note in table(tmp_path / "zimage").footnotes)


@pytest.mark.parametrize("name", ["", "densealign", "zimage/densealign"])
def test_the_share_of_failed_items_is_one_of_a_benchmark(name, tmp_path):
    densealign(tmp_path, "a", 40, 0.5, 0.2, failed=3)
    assert table(tmp_path / "zimage", max_failure_share={name: 0.05}).rows[0]["failures"].value == 3
    with pytest.raises(DataError, match="3 of 60 items failed, more than the 1.0% allowed; .*benchmarks.densealign"):
        table(tmp_path / "zimage", max_failure_share={"other": 0.05})
