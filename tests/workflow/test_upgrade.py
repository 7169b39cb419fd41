"""`promptecho upgrade`: what a newer version would make again of finished results, why, and what it costs."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from finished_demo import unpack
from workflow_copy import ROOT, copy_checkout

from promptecho.upgrade.costs import judge_calls
from promptecho.upgrade.reasons import CODE, FOLLOWS, STAGES
from promptecho.upgrade.shadow import shadow_of

CHEAP = {"score", "table", "curves", "samples", "training_curves"}
MARKER = "torch-was-imported"


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    """A checkout of now with the finished demo of an earlier version."""
    root = copy_checkout(tmp_path_factory.mktemp("demo")).root
    (root / "config/config.yaml").write_text("experiments: [shapes]\n")
    (root / "promptecho/shapes/weights").symlink_to(ROOT / "promptecho/shapes/weights")
    unpack(root)
    for name, seconds in (("score/geneval.base.0", 30), ("train/promptecho-s1.20", 1800)):
        timing = root / f"results/shapes/timings/{name}.tsv"
        timing.parent.mkdir(parents=True)
        timing.write_text(f"s\th:m:s\tmax_rss\n{seconds}.0\t0:00:01\t9\n")
    return root


def upgrade(root: Path, *arguments: str, watched: Path) -> subprocess.CompletedProcess[str]:
    """The command in `root`; `watched` gets the file MARKER where it, or what it starts, imports torch."""
    guard = watched / "guard/torch"
    guard.mkdir(parents=True, exist_ok=True)
    (guard / "__init__.py").write_text(f"open({str(watched / MARKER)!r}, 'w').close()\nraise ImportError('torch')\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(guard.parent), str(root)])}
    command = [sys.executable, "-m", "promptecho", "upgrade", *arguments]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


def listing(root: Path) -> dict[str, tuple[int, str]]:
    found = {}
    for path in sorted(root.rglob("*")):
        if "__pycache__" not in path.parts and path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path.relative_to(root))] = (path.stat().st_mtime_ns, content)
    return found


def by_rule(report: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for group in report["again"]:
        found.setdefault(group["rule"], []).append(group)
    return found


def test_scores_of_an_earlier_version_are_named_with_why_and_what_they_cost_and_nothing_is_written(demo, tmp_path):
    before = listing(demo)
    result = upgrade(demo, "--dry-run", "--json", watched=tmp_path)
    assert result.returncode == 0, result.stderr
    assert listing(demo) == before
    assert not (tmp_path / MARKER).exists()
    report = json.loads(result.stdout)
    groups = by_rule(report)
    assert set(groups) <= CHEAP and report["refused"] is None and report["judge"] == []
    (scores,) = groups["score"]
    assert scores["jobs"] == 11 and scores["why"] == ["the code of its rules"]
    assert len(scores["digests"]) == 6  # one of each benchmark
    assert all(re.fullmatch(r"[0-9a-f]{16}", one) for pair in scores["digests"] for one in pair)
    assert (scores["timed"], scores["seconds"]) == (1, 30)
    assert report["finished_jobs"] > 15 and report["unrecorded"] == 0
    assert report["command"] == "snakemake --profile profiles/local -- all"


def test_a_raised_version_and_a_training_that_would_be_refused_are_priced_by_timings_and_a_plan(demo, tmp_path):
    """With the training all that follows is counted, though Snakemake refuses before it looks so far."""
    slices, plan = demo / "promptecho/config/slices.py", tmp_path / "plan.json"
    run = {"run": "promptecho-s1", "gpu_hours": 80.0, "iterations": 40}
    evaluations = [{"name": "geneval", "gpu_hours": 3.0, "shards": 1}]
    plan.write_text(json.dumps({"experiment": "shapes", "runs": [run], "evaluations": evaluations, "captions": None}))
    before, code = listing(demo / "results"), slices.read_text()
    assert code.count('"generate": 1,') == 1
    slices.write_text(code.replace('"generate": 1,', '"generate": 2,'))
    try:
        setting = "shapes.training.learning_rate=1e-4 shapes.image_sets.geneval.shapes.per_tag=13"
        result = upgrade(demo, "results/shapes", "--set", setting, "--plan", str(plan), "--json", watched=tmp_path)
    finally:
        slices.write_text(code)
    assert result.returncode == 0, result.stderr
    assert listing(demo / "results") == before
    report = json.loads(result.stdout)
    first, second = by_rule(report)["train"]
    assert first["why"] == ["changed since: training.learning_rate (was 0.00025, now 0.0001)"]
    assert first["seconds"] == 1800 and first["gpu_hours"] == 0  # on a machine without GPUs
    assert second["files"][0].startswith("results/shapes/runs/promptecho-s1/40/") and second["gpu_hours"] == 40
    (prompts,) = by_rule(report)["benchmark_prompts"]  # its command names no configuration
    per_tag = ["changed since: image_set.shapes.per_tag (was 12, now 13)"]
    assert prompts["why"] == per_tag and prompts["jobs"] == 1
    images = {group["why"][0]: group for group in by_rule(report)["generate_shard"]}
    version, follows = images["the version of its stage, or a file that ships with it"], images[FOLLOWS.reasons[0]]
    assert version["digests"] and (version["jobs"], version["priced"]) == (5, 0)
    assert (follows["jobs"], follows["priced"], follows["gpu_hours"]) == (7, 2, 6.0)
    assert "runs/promptecho-s1 (checkpoints 20, 40): changed since" in report["refused"]
    assert "--config retrain=shapes/promptecho-s1" in report["refused"]


def test_newer_inputs_and_files_of_other_schemas_are_named_in_the_terminal_too(demo, tmp_path):
    tables, prompts = demo / "results/shapes/tables", demo / "results/shapes/prompts/tiif/metadata.jsonl"
    contents, time = {path: path.read_bytes() for path in tables.glob("*.json")}, prompts.stat().st_mtime_ns
    record = demo / ".snakemake/metadata" / base64.b64encode(b"results/shapes/captions/captions.h5").decode()
    try:
        for path in contents:
            path.write_text('{"name": "x"}')
        (tables / "geneval.json").write_text('{"schema_version": 7}')
        os.utime(prompts)
        record.rename(tmp_path / "record")
        (demo / "results/renamed/config").mkdir(parents=True)
        result = upgrade(demo, watched=tmp_path)
    finally:
        for path, content in contents.items():
            path.write_bytes(content)
        os.utime(prompts, ns=(time, time))
        (tmp_path / "record").rename(record)
        (demo / "results/renamed/config").rmdir()
        (demo / "results/renamed").rmdir()
    assert result.returncode == 0, result.stderr
    assert "of those that stay, Snakemake has no record (.snakemake) of 1: " in result.stdout
    assert "because config/config.yaml does not list them: results/renamed\n" in result.stdout
    assert "5 score or table files of 17 are of an earlier schema and are read as they are" in result.stdout
    assert "tables/geneval.json: schema_version is 7, this version reads up to 1: a newer version" in result.stdout
    newer = "newer: results/shapes/prompts/tiif/metadata.jsonl"
    assert f"shapes: generate_shard, 2 jobs: what it is made from is newer\n    {newer}" in result.stdout
    assert "shapes: score, 9 jobs: the code of its rules\n    recorded -> now: " in result.stdout
    assert "shapes: score, 2 jobs: what it is made from is made again\n" in result.stdout
    assert "30 s when they were made (1 of 9 jobs), of 8 jobs no time is on record" in result.stdout
    assert result.stdout.endswith("to make it: snakemake --profile profiles/local -- all\n")


def test_packed_images_are_unpacked_only_if_asked_for(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/images.tar").write_bytes(b"")
    assert "--unpack" in judge_calls(tmp_path, "--images images --config x", {})["unknown"]
    assert judge_calls(tmp_path, "--images nothing --config x", {})["unknown"] == "nothing is not there"


def test_every_rule_with_a_digest_has_reasons_of_its_own():
    """Stage and names as the rule gives them to the digest."""
    found = {}
    for file in sorted((ROOT / "workflow/rules").glob("*.smk")):
        for rule in re.split(r"^rule (?=\w+:$)", file.read_text(), flags=re.MULTILINE)[1:]:
            if digest := re.search(r"^ +digest=(.+),$", rule, re.MULTILINE):
                found[rule.partition(":")[0]] = digest[1]
    assert set(found) == {*STAGES, *CODE}
    made = {"generate_shard": 'made_from("generate", image_set="S")'}  # with the limit of its prompts
    for rule, (stage, names) in STAGES.items():
        arguments = "".join(f', {argument}="{wildcard}"' for argument, wildcard in names.items())
        assert re.fullmatch(rf'(made_from|slice_of)\("{stage}"{arguments}\)', made.get(rule, found[rule])), rule


def test_relative_paths_lead_out_of_the_shadow_as_they_lead_out_of_the_folder(tmp_path):
    root = tmp_path / "projects/checkout"
    (root / "results/e/work").mkdir(parents=True)
    (root / "results/e/work/file_hashes.json").write_text("{}")
    for place in ("projects/photos", "models", "projects/checkout/data", "projects/checkout/results/e/runs"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a").write_text(place)
    with shadow_of(root) as shadow:
        for path in ("../photos", "../../models", "data", "results/e/runs"):
            assert (shadow / path / "a").read_text() == str((root / path).resolve().relative_to(tmp_path))
            assert (shadow / path / "a").stat().st_mtime_ns == (root / path / "a").stat().st_mtime_ns
        (shadow / "results/e/work/file_hashes.json").write_text("changed")
        (shadow / "results/e/work/new").write_text("")
    assert not shadow.exists()
    assert (root / "results/e/work/file_hashes.json").read_text() == "{}" and not (root / "results/e/work/new").exists()


def test_what_cannot_be_planned_is_one_error(demo, tmp_path):
    for arguments, said in (
        (["--set", "shapes.training.lerning_rate=1"], "did you mean learning_rate?"),
        (["config"], "config: not results/E of this folder; start where you start Snakemake"),
        (["--profile", "profiles/lokal"], "--profile profiles/lokal: no such folder"),
        (["--plan", "profiles/local/config.yaml"], "profiles/local/config.yaml: not valid JSON"),
        (["--plan", "results/shapes/runs/promptecho-s1/20/state/state.json"], "not what `promptecho plan --json`"),
    ):
        result = upgrade(demo, *arguments, watched=tmp_path)
        assert result.returncode == 1 and said in result.stderr and "Traceback" not in result.stderr, result.stderr
