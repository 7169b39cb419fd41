"""What `promptecho status` knows of a start of Snakemake: real ones, on a copy of the workflow."""

from __future__ import annotations

from promptecho.status.report import look
from promptecho.status.stop import ask_to_stop
from promptecho.train.stop_file import stop_file_of

TRAINED = "results/tiny/runs/echo-s1/4/state"
PROMPTS = "results/tiny/prompts/geneval/metadata.jsonl"
# In place of the package's command: training would take longer.
KILLED = """\
import os, sys
print("train echo-s1: 1/2 iterations, 0.1/s, 10 s left", flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_start_leaves_its_jobs_and_a_dry_run_does_not(workflow):
    workflow.planned(PROMPTS)
    results = workflow.root / "results/tiny"
    assert not (results / "work/jobs").exists()
    done = workflow.snakemake("--cores", "1", PROMPTS)
    assert done.returncode == 0, done.stdout
    status = look(results)
    assert [(one.rule, one.done, one.pending) for one in status.rules] == [("benchmark_prompts", 1, 0)]
    assert status.snakemake == "not running" and status.command.endswith(f" -- {PROMPTS}")
    # Nothing is to be made, so the list stays.
    listed = next((results / "work/jobs").iterdir()).read_text()
    assert workflow.snakemake("--cores", "1", PROMPTS).returncode == 0
    assert [path.read_text() for path in (results / "work/jobs").iterdir()] == [listed]


def test_a_training_that_is_killed_and_a_request_to_stop_that_a_start_takes_back(workflow):
    results = workflow.root / "results/tiny"
    for name in ("captions.h5", "heldout.jsonl"):
        (results / "captions").mkdir(parents=True, exist_ok=True)
        (results / "captions" / name).touch()
    workflow.planned("--allowed-rules", "train", "--", TRAINED)
    ask_to_stop(results, "echo-s1")
    lock = workflow.root / ".snakemake/locks/0.output.lock"  # of a Snakemake that was killed
    lock.parent.mkdir(exist_ok=True)
    lock.write_text(f"{TRAINED}\n")
    refused = workflow.snakemake("--cores", "1", "--allowed-rules", "train", "--", TRAINED)
    assert refused.returncode == 1 and stop_file_of(results, "echo-s1").exists(), refused.stdout
    (workflow.root / "promptecho/__main__.py").write_text(KILLED)
    ended = workflow.snakemake("--nolock", "--cores", "1", "--allowed-rules", "train", "--", TRAINED)
    assert ended.returncode == 1, ended.stdout
    assert not stop_file_of(results, "echo-s1").exists()
    status = look(results)
    (failed,) = status.failed
    assert (failed.job, failed.state) == ("train echo-s1 2", "failed") and "killed (signal 9)" in failed.reason
    assert failed.last_line == "train echo-s1: 1/2 iterations, 0.1/s, 10 s left"
    assert failed.command.endswith(" -- results/tiny/runs/echo-s1/2/adapter")
    assert [(one.jobs, one.reason) for one in status.waiting] == [(1, "needs train echo-s1 2, which has failed")]
    assert [(one.run, one.state) for one in status.runs] == [("echo-s1", "failed")]
