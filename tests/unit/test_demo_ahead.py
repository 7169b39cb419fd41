"""What `make demo` says of what is ahead."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def told(results: Path) -> str:
    command = [sys.executable, ROOT / "scripts/demo_ahead.py", results]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def base_images(results: Path, seconds: float) -> None:
    """As many images as the experiment has, as if they had taken so many seconds."""
    timing = results / "timings/generate_shard/base.0.heldout.0.tsv"
    timing.parent.mkdir(parents=True, exist_ok=True)
    timing.write_text(f"s\th:m:s\n{seconds}\t0:00:01\n")
    shard = results / "images/base/0/heldout/shards/0.jsonl"
    shard.parent.mkdir(parents=True, exist_ok=True)
    shard.write_text("{}\n" * 400)


def minutes(text: str) -> float:
    number, unit = re.search(r"images: (\d+) (minutes|seconds), until about \d\d:\d\d$", text, re.MULTILINE).groups()
    return float(number) / (60 if unit == "seconds" else 1)


def test_time_left_grows_with_the_seconds_of_the_base_model_s_images(tmp_path):
    results = tmp_path / "shapes"
    base_images(results, 600)
    slow = told(results)
    assert re.search(r"^demo: now promptecho-s1 is trained, \d+ iterations of \d+ images", slow, re.MULTILINE), slow
    assert re.search(r"^demo: then its images, scores, tables and figures: until about \d\d:\d\d$", slow, re.MULTILINE)
    base_images(results, 150)
    listing = results / "timings/generate_shard/base.0.tiif.0.tsv"  # of images that another job has made
    listing.write_text("s\th:m:s\n1\t0:00:01\n")
    assert 3 < minutes(slow) / minutes(told(results)) < 5


def test_nothing_is_ahead_of_a_finished_demo(tmp_path):
    results = tmp_path / "shapes"
    assert told(results) == ""  # no image has been made
    base_images(results, 100)
    iterations = int(re.search(r"(\d+) iterations", told(results))[1])
    (results / f"runs/promptecho-s1/{iterations}/adapter").mkdir(parents=True)
    assert told(results) == ""
