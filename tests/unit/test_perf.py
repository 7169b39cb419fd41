"""The benchmarks under perf/ run, and what they compare computes the same. Nothing here looks at a time."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tiny_experiment import Experiment

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_update_and_the_straightforward_one_end_in_the_same_weights(tmp_path):
    experiment = Experiment(tmp_path)
    command = [
        sys.executable, ROOT / "perf" / "train_step.py", "--config", experiment.config(), "--run", "r", "--captions",
        experiment.captions, "--iterations", "2", "--threads", "1",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    text = " ".join(done.stdout.split())
    assert all(phase in text for phase in ("sample", "reward", "precompute", "update"))
    assert float(re.search(r"difference of a weight afterwards ([\d.e+-]+)", text)[1]) < 1e-6
