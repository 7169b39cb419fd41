"""An experiment's results as Snakemake and trainings leave them, for tests of how it stands."""

from __future__ import annotations

import base64
import json
import os
import socket
import time
from pathlib import Path

from promptecho.status.job_list import started_at
from promptecho.status.report import look

# As Snakemake 9.27 has written it, of a rule whose Python was killed and one whose last command ended with 3.
LOG = """\
Building DAG of jobs...
Execute 2 jobs...
[Sat Nov 28 11:57:56 2026]
RuleException:
CalledProcessError in file "/flow/Snakefile", line 10:
Command 'set -euo pipefail;  python -m promptecho train 2>&1 | tee -i logs/b.log' returned non-zero exit status 137.
[Sat Nov 28 11:57:56 2026]
Error in rule train:
    message: None
    jobid: 2
    output: results/e/runs/r/2/adapter, results/e/runs/r/2/state
    log: results/e/logs/train/r.2.log (check log file(s) for error details)
    shell:
        python -m promptecho train
        (command exited with non-zero exit code)
RuleException:
CalledProcessError in file "/flow/Snakefile", line 6:
Command 'set -euo pipefail;  false' returned non-zero exit status 3.
[Sat Nov 28 11:57:56 2026]
Error in rule score:
    message: None
    jobid: 1
    output: results/e/scores/b/base/0.json
    shell:
        false
"""
ROW = {"iteration": 1, "reward_mean": -1.5, "seconds": 60.0, "images_per_s": 2.0, "memory_gb_sample": 3.5, "mfu": 0.31}


def job(rule: str, outputs: list[str], needs: tuple[int, ...] = (), *, needed: bool = True, **wildcards: str) -> dict:
    name = ".".join(wildcards.values()) or "all"
    return {
        "rule": rule, "wildcards": {"E": "e", **wildcards}, "outputs": [f"results/e/{one}" for one in outputs],
        "log": f"results/e/logs/{rule}/{name}.log", "timing": f"results/e/timings/{rule}/{name}.tsv", "needed": needed,
        "needs": list(needs),
    }  # fmt: skip


JOBS = [
    job("prompts", ["prompts/s/metadata.jsonl"], needed=False, S="s"),
    job("train", ["runs/r/2/adapter", "runs/r/2/state"], R="r", N="2"),
    job("train", ["runs/r/4/adapter", "runs/r/4/state"], (1,), R="r", N="4"),
    job("generate_shard", ["images/base/0/s/shards/0.jsonl"], (0,), R="base", N="0", S="s", K="0"),
    job("generate_shard", ["images/base/0/s/shards/1.jsonl"], (0,), R="base", N="0", S="s", K="1"),
    job("score", ["scores/b/base/0.json"], (3, 4), B="b", R="base", N="0"),
]
RULES = {
    "train": {"gpus_per_node": 4, "nodes": 2, "resumable": True, "local": False},
    "generate_shard": {"gpu": 1, "resumable": True, "requeue_limit": 1, "local": False},
}


class Made:
    """results/e in a folder where Snakemake was started, with the list of jobs that it leaves."""

    def __init__(self, root: Path, **about: object):
        self.root, self.results, self.started = root, root / "results/e", time.time() - 100
        told = {
            "schema_version": 1, "started": self.started, "host": socket.gethostname(), "pid": os.getpid(),
            "pid_started": started_at(os.getpid()), "config": "a.yaml", "prefix": "results/e", "source": "e.yaml",
            "command": ["snakemake", "--profile", "profiles/local"], "targets": ["all"], "executor": "local",
            "logdir": None, "requeue_limit": None, "rules": RULES, "jobs": JOBS, **about,
        }  # fmt: skip
        self.write("results/e/work/jobs/0.json", json.dumps(told))
        self.write("results/e/config/a.yaml", "runs: {r: {iterations: 4}}\n")
        os.utime(self.results / "config/a.yaml", (self.started - 1, self.started - 1))
        self.write("e.yaml", "")
        os.utime(root / "e.yaml", (self.started - 1, self.started - 1))
        (root / ".snakemake/incomplete").mkdir(parents=True)

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def begin(self, output: str) -> None:
        """As Snakemake marks a job that it has started."""
        name = base64.urlsafe_b64encode(f"results/e/{output}".encode()).decode()
        self.write(f".snakemake/incomplete/{name}", "")

    def finish(self, number: int, seconds: float) -> None:
        for output in JOBS[number]["outputs"]:
            self.write(output, "")
        head = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time"
        self.write(JOBS[number]["timing"], f"{head}\n{seconds}\t-\t100.0\t1\t1\t1\t0\t0\t50\t{seconds / 2}\n")

    def fail(self) -> None:
        stamp = time.strftime("%Y-%m-%dT%H%M%S", time.localtime(self.started - 2))
        self.write(f".snakemake/log/{stamp}.000000.snakemake.log", LOG)

    def states(self) -> dict[str, tuple[int, int, int, int, int]]:
        """done, running, pending, failed, interrupted by rule."""
        rules = look(self.results).rules
        return {one.rule: (one.done, one.running, one.pending, one.failed, one.interrupted) for one in rules}
