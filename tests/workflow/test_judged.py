"""A benchmark by a judge through the workflow: asked once by a rule of its own, scored again without key or network."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "unit"))

from judge_server import KEY, serving  # noqa: E402

from promptecho.benchmarks.packing import pack  # noqa: E402
from promptecho.benchmarks.tiif.oracle import ORACLE  # noqa: E402
from promptecho.shapes.oracle import detect  # noqa: E402

SCORE = "results/tiny/scores/tiif/base/0.json"
TABLE = "results/tiny/tables/tiif.md"
EDITS = {
    "image_sets:": "image_sets:\n  tiif: {benchmark: tiif, shapes: {per_tag: 1, seed: 1}, images_per_prompt: 1, "
    "num_inference_steps: 2, guidance_scale: 1.0, num_shards: 1}",
    "benchmarks:": "judges:\n  outage_s: 2\n  models:\n    one: {kind: openai, model: m, endpoint: 'URL', "
    "api_key_env: JUDGE_KEY, concurrency: 1}\nbenchmarks:\n  "
    "tiif: {image_set: tiif, scorer: tiif, backend: judge, judge: one, mode: fixed, limit: 10}",
    "evaluate:": "evaluate:\n  - {benchmark: tiif}",
    "runs:\n  echo-s1: {seed: 1}": "runs: {}",  # the base model alone: nothing is trained for its table
    "tables: [geneval]": "tables: [tiif]",
}


@pytest.fixture
def judged(workflow):
    """The experiment with TIIF-Bench by a judge whose endpoint is still URL, and the embedded models."""
    (workflow.root / "promptecho/shapes/weights").symlink_to(ROOT / "promptecho/shapes/weights")
    for old, new in EDITS.items():
        workflow.edit("config/experiments/tiny.yaml", old, new)
    return workflow


def upgraded(root: Path, *options: str) -> dict[str, Any]:
    """What `promptecho upgrade` says, without key and endpoint."""
    command = [sys.executable, "-m", "promptecho", "upgrade", "--json", *options]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_judge_is_asked_once_and_scores_are_made_again_from_its_answers(judged, monkeypatch):
    def honest(text: str) -> str:
        ((_, data),) = server.log[-1]["images"]
        objects = detect(Image.open(io.BytesIO(data)))
        return "\n".join(ORACLE.answer(line, objects) for line in text.split("\n") if line.endswith("?"))

    with serving(answer=honest) as server:
        judged.edit("config/experiments/tiny.yaml", "URL", server.endpoint("openai"))
        monkeypatch.setenv("JUDGE_KEY", KEY)
        first = judged.snakemake("--cores", "2", SCORE)
        assert first.returncode == 0, first.stdout
        images = len(list((judged.root / "results/tiny/images/base/0/tiif").rglob("*.png")))
        assert len(server.billed) == images == 20
    scores = json.loads((judged.root / SCORE).read_text())
    assert scores["provenance"]["failures"] == 0 and scores["provenance"]["template_digest"]
    assert scores["provenance"]["judge_model"] == "m"
    assert scores["provenance"]["limit"] == {"prompts": 10, "of": 13}

    # The endpoint is gone, and the key too.
    monkeypatch.delenv("JUDGE_KEY")
    module = judged.root / "promptecho/benchmarks/tiif/scorer.py"
    module.write_text(module.read_text() + "\n# reworded\n")
    assert judged.planned(SCORE) == {"judge": 1, "score": 1}
    folder = judged.root / "results/tiny/images/base/0/tiif"
    pack(folder)
    packed = sorted(str(path) for path in folder.parent.rglob("*"))
    (calls,) = upgraded(judged.root, "--unpack")["judge"]
    assert sorted(str(path) for path in folder.parent.rglob("*")) == packed
    assert (calls["benchmark"], calls["run"], calls["step"]) == ("tiif", "base", 0)
    assert (calls["calls"], calls["recorded"]) == (0, images)
    again = judged.snakemake("--cores", "2", TABLE)
    assert again.returncode == 0, again.stdout
    assert json.loads((judged.root / SCORE).read_text())["items"] == scores["items"]
    assert "limit: first 10 of 13 prompts" in (judged.root / TABLE).read_text()

    # With a larger limit the other images are made, and asked about.
    judged.edit("config/experiments/tiny.yaml", "limit: 10", "limit: 12")
    assert judged.planned(SCORE) == {"generate_shard": 1, "judge": 1, "score": 1}
    (calls,) = upgraded(judged.root)["judge"]
    assert calls["unknown"] == "its images are made first"

    # The key went to the endpoint and nowhere else.
    written = [Path(folder) / name for folder, _, names in os.walk(judged.root) for name in names]
    assert not [path for path in written if KEY.encode() in path.read_bytes()] and KEY not in first.stdout


def test_a_judge_without_answers_fails_in_one_line_and_leaves_no_score(judged):
    judged.edit("config/experiments/tiny.yaml", "URL", "http://127.0.0.1:9/v1")
    judged.edit("config/experiments/tiny.yaml", "concurrency: 1", "concurrency: 1, max_attempts: 1")
    run = judged.snakemake("--cores", "2", SCORE)
    assert run.returncode != 0 and not (judged.root / SCORE).exists()
    assert "127.0.0.1:9" in run.stdout and "Traceback" not in run.stdout, run.stdout
