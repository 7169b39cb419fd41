"""The soak runs, at a small size and with two kinds of faults."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

from cluster import Cluster

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_few_jobs_with_faults(cluster: Cluster):  # the fixture says loudly where there can't be one
    # Two processors for four jobs: with four, all may end at once, and nothing is left for a fault to hit.
    command = [
        sys.executable, ROOT / "perf" / "slurm_soak.py", "--jobs", "4", "--kinds", "scancel", "snakemake",
        "--cpus", "1", "--interval", "2", "--seconds", "2",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
    assert "all is well" in done.stdout and "scancel 1, node 0, snakemake 1, slurmctld 0" in done.stdout


def test_a_job_sees_another_run_of_itself_alive_and_one_that_has_finished(tmp_path):
    script = runpy.run_path(str(ROOT / "perf" / "slurm_soak.py"))["JOB"].format(seconds=3)
    (tmp_path / "job.sh").write_text(script)
    for name in ("locks", "done", "out"):
        (tmp_path / name).mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}

    def start(**variables: str) -> subprocess.Popen:
        return subprocess.Popen(["bash", "job.sh", "7", "out/7.txt"], cwd=tmp_path, env={**kept, **variables})

    first = start(SLURM_JOB_ID="31", SLURM_ARRAY_JOB_ID="30", SLURM_ARRAY_TASK_ID="4")
    while not (tmp_path / "record").exists():
        assert first.poll() is None
    assert start(SLURM_JOB_ID="40", SLURM_RESTART_COUNT="2").wait() == first.wait() == 0
    assert start(SLURM_JOB_ID="50").wait() == 0
    lines = (tmp_path / "record").read_text().splitlines()
    assert "twice 7 40.2" in lines and "begin 7 30_4.0" in lines
    assert [line for line in lines if line.startswith("again")] == ["again 7 50.0 40.2"]
