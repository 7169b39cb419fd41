"""`promptecho status` beside a real Slurm: a job that runs, one that waits, and the one question that it asks;
and `efficiency` after their end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# The workflow's main process notes its jobs; so does this one, of a workflow that needs no models.
JOBS = f"""
    import sys
    sys.path.insert(0, {str(ROOT)!r})
    from types import SimpleNamespace
    from promptecho.status.record import record_jobs

    class Experiments(dict):
        paths, site = {{"e": "results/e/config/a.yaml"}}, SimpleNamespace(experiments_dir=".")

    build = workflow._build_dag
    def build_and_note():
        build()
        record_jobs(workflow, Experiments(e=None), str)
    if workflow.is_main_process:
        workflow._build_dag = build_and_note

    rule all:
        input: expand("results/e/parts/{{K}}", K=range(3))
    rule part:
        output: "results/{{E}}/parts/{{K}}"
        log: "results/{{E}}/logs/part/{{K}}.log"
        threads: 8
        resources: runtime=5, mem_mb=100, resumable=True
        shell: "echo 'part {{wildcards.K}}: 1/4 images, 0.001/s, 50 min left' > {{log}}; "
               "until test -e go; do sleep 0.2; done; touch {{output}}"
"""


def test_jobs_that_run_and_wait(cluster, flow):
    one = flow(cluster, JOBS)
    process = one.start("results/e/parts/0", "results/e/parts/1", "results/e/parts/2")
    logs = one.folder / "results/e/logs/part"
    one.wait(lambda: len(list(logs.glob("*.log"))) == 2, "two jobs to run")  # two nodes of eight processors
    before = len(one.calls("squeue")), len(one.calls("sacct"))
    environment = {**one.environment, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "promptecho", "status", "results/e", "--json"]
    told = subprocess.run(command, cwd=one.folder, env=environment, capture_output=True, text=True, check=True)
    after = [line for line in one.calls("squeue")[before[0] :] if "--user=" in line]
    (status,) = json.loads(told.stdout)
    one.go()
    assert one.end(process) == 0, one.text
    assert len(after) == 1 and status["notes"] == [] and status["snakemake"] == "running"
    (rule,) = status["rules"]
    assert (rule["running"], rule["pending"], rule["done"]) == (2, 1, 0)
    assert sorted(job["node"] for job in status["running"]) == sorted({job["node"] for job in status["running"]})
    for job in status["running"]:
        assert job["limit_s"] == 300 and job["elapsed"] < 300 and job["limit"] == "will reach its limit, requeue 1 of 3"
    assert [(one["jobs"], one["reason"]) for one in status["waiting"]] == [(1, "Slurm: Resources")]
    done = subprocess.run(command, cwd=one.folder, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)[0]["rules"][0]["done"] == 3
    command = [sys.executable, "-m", "promptecho", "efficiency", "results/e", "--json"]

    def used() -> list[tuple[str, int, str]]:
        told = subprocess.run(command, cwd=one.folder, env=environment, capture_output=True, text=True, check=True)
        return [(rule["rule"], rule["jobs"], rule["source"]) for rule in json.loads(told.stdout)["rules"]]

    one.wait(lambda: used() == [("part", 3, "sacct")], "accounting to know the ends")  # the timings have none
