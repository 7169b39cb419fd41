"""The soak runs, at a small size and with two kinds of faults."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cluster import Cluster

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_few_jobs_with_faults(cluster: Cluster):  # the fixture says loudly where there can't be one
    command = [
        sys.executable, ROOT / "perf" / "slurm_soak.py", "--jobs", "4", "--kinds", "scancel", "snakemake",
        "--cpus", "2", "--interval", "2", "--seconds", "2",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
    assert "all is well" in done.stdout and "scancel 1, node 0, snakemake 1, slurmctld 0" in done.stdout
