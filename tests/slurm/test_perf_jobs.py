"""The benchmark of many short jobs runs, at a tenth of its size; calls of Slurm's commands are counted, no times."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cluster import Cluster

ROOT = Path(__file__).resolve().parent.parent.parent


def test_twenty_jobs_from_one_submit_host(cluster: Cluster):  # the fixture says loudly where there can't be one
    command = [sys.executable, ROOT / "perf" / "slurm_jobs.py", "--jobs", "20", "--overhead", "1", "--cpus", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    row = next(line for line in done.stdout.splitlines() if line.strip(" │").startswith("submitit"))
    _, submissions, per_minute, _, _, _, wall = (float(cell.split()[0]) for cell in row.split("│")[2:-1])
    assert submissions == 1  # twenty jobs, one sbatch
    # Before the submission the cluster is asked six things, once each: sinfo, sacctmgr, configuration, federation and
    # partitions, and squeue for kept jobs. Then one squeue for all jobs, at once and every 30 s.
    assert per_minute * wall / 60 <= 6 + 1 + wall / 30 + 0.5  # the half: of the rounded numbers in the table
    assert "inside a job, n = 1 pairs" in done.stdout
