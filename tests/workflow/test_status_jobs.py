"""What `promptecho status` knows of a start of Snakemake: real ones, on a copy of the workflow."""

from __future__ import annotations

from promptecho.status.report import look
from promptecho.status.stop import ask_to_stop
from promptecho.train.stop_file import stop_file_of

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
    workflow.planned("--allowed-rules", "train", "--", "results/tiny/runs/echo-s1/4/state")
    ask_to_stop(results, "echo-s1")
    (workflow.root / "promptecho/__main__.py").write_text(KILLED)
    ended = workflow.snakemake("--cores", "1", "--allowed-rules", "train", "--", "results/tiny/runs/echo-s1/4/state")
    assert ended.returncode == 1, ended.stdout
    assert not stop_file_of(results, "echo-s1").exists()
    status = look(results)
    (failed,) = status.failed
    assert (failed.job, failed.state) == ("train echo-s1 2", "failed") and "killed (signal 9)" in failed.reason
    assert failed.last_line == "train echo-s1: 1/2 iterations, 0.1/s, 10 s left"
    assert failed.command.endswith(" -- results/tiny/runs/echo-s1/2/adapter")
    assert [(one.jobs, one.reason) for one in status.waiting] == [(1, "needs train echo-s1 2, which has failed")]
    assert [(one.run, one.state) for one in status.runs] == [("echo-s1", "failed")]
