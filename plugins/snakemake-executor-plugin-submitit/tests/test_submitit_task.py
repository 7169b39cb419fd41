"""What a task's end means, the end of its log, and the settings."""

from __future__ import annotations

import json
import os
import stat

import pytest
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit import ExecutorSettings, task
from snakemake_executor_plugin_submitit.folder import private_folder
from snakemake_executor_plugin_submitit.ledger import Entry, Ledger, Submission
from snakemake_executor_plugin_submitit.owners import Owners
from snakemake_executor_plugin_submitit.queue import State
from snakemake_executor_plugin_submitit.recovery import Recovery
from snakemake_executor_plugin_submitit.task import Task, judge_outcome, judge_state


@pytest.fixture
def one(tmp_path) -> Task:
    entries = [Entry("k", "f", "r", "smk.rule")]
    return Task(Submission("t", str(tmp_path), entries, slurm_id="12"), 0, "rule k=0")


def outcome(one: Task, **values) -> task.TaskVerdict:
    base = {"returncode": 0, "missing": [], "reason": None, "node": "n1", "seconds": 2.0, "restarts": 0}
    one.outcome.write_text(json.dumps({**base, **values}))
    return judge_outcome(one)


def test_outcomes(one):
    assert outcome(one) == task.SUCCESS
    assert outcome(one, returncode=3).reason == "failed on n1 after 2 s"
    assert outcome(one, returncode=-15).reason == "was ended by signal 15 on n1 after 2 s"
    assert outcome(one, missing=["a.txt"]).reason == "ended without error on n1 after 2 s but did not make a.txt"
    assert outcome(one, reason="reached its time limit").kind == "failed"


def test_lack_of_memory_is_told_by_what_the_kernel_counted(one):
    counted = {"kills": 1, "of_job": True, "limit_mb": 300, "peak_mb": 300}
    verdict = outcome(one, returncode=1, memory=counted)
    told = "ran out of memory on n1 after 2 s: the kernel killed a process of it at its limit of 300 MB"
    assert verdict.reason == told and verdict.out_of_memory and not verdict.unclear
    # Without control groups the kernel counts for the whole node.
    verdict = outcome(one, returncode=1, memory={**counted, "of_job": False, "kills": 2})
    assert "failed on n1" in verdict.reason and "2 processes for lack of memory meanwhile, perhaps" in verdict.reason
    # A MemoryError, and a kill by somebody else, are none.
    assert outcome(one, returncode=1, memory={**counted, "kills": 0}).reason == "failed on n1 after 2 s"
    killed = "was killed (signal 9) on n1 after 2 s"
    assert outcome(one, returncode=-9, memory={**counted, "kills": 0}).reason == killed
    assert outcome(one, returncode=-9, memory={"kills": None}).reason == killed + "; perhaps for lack of memory"
    assert outcome(one, memory=counted) == task.SUCCESS  # what it killed was not needed


@pytest.mark.parametrize("word", ["PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "REQUEUED"])
def test_jobs_that_go_on_by_themselves_are_waited_for(one, word):
    assert all(judge_state(one, State(word), now, 5, 3) == task.WAITING for now in (0, 100))


@pytest.mark.parametrize("state", [None, State("COMPLETED"), State("FAILED"), State("CANCELLED", "by 0")])
def test_an_end_without_outcome_is_a_failure_after_the_latency_of_the_file_system(one, state):
    assert judge_state(one, state, 100, 5, 3) == task.WAITING  # the outcome may not be visible yet
    assert judge_state(one, state, 104, 5, 3) == task.WAITING
    assert judge_state(one, state, 106, 5, 3).kind == "failed"


def test_a_job_that_comes_back_starts_the_latency_anew(one):
    assert judge_state(one, None, 100, 5, 3) == task.WAITING
    assert judge_state(one, State("PENDING"), 104, 5, 3) == task.WAITING
    assert judge_state(one, None, 107, 5, 3) == task.WAITING


@pytest.mark.parametrize("word", ["PREEMPTED", "NODE_FAIL", "BOOT_FAIL"])
def test_the_cluster_s_faults_are_submitted_again_up_to_the_limit(one, word):
    judge_state(one, State(word), 0, 5, 3)
    assert judge_state(one, State(word), 6, 5, 3).kind == "again"
    one.submission.resubmissions = 3
    assert judge_state(one, State(word), 7, 5, 3).kind == "failed"


def test_jobs_that_slurm_holds_fail_at_once(one):
    assert judge_state(one, State("PENDING", "launch failed requeued held"), 0, 5, 3).kind == "failed"
    assert judge_state(one, State("PENDING", "launch_failed_requeued_held"), 0, 5, 3).kind == "failed"  # scontrol's
    assert judge_state(one, State("SPECIAL_EXIT"), 0, 5, 3).kind == "failed"
    assert judge_state(one, State("PENDING", "JobHeldUser"), 0, 5, 3) == task.WAITING  # somebody may release it


def test_settings_are_refused_together():
    with pytest.raises(WorkflowError) as caught:
        ExecutorSettings(requeue_limit=-1, array_size=0, jobname_prefix="a b")
    assert str(caught.value).count("submitit-") == 3


def test_the_log_folder_is_its_owner_s_alone(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    assert stat.S_IMODE(private_folder(folder, tmp_path).stat().st_mode) == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(WorkflowError, match="submitit-logdir"):
        private_folder(tmp_path / "file", tmp_path)


@pytest.mark.parametrize("name", ["50%", 'a"b', "CORP\\jo", "a\nb"])
def test_paths_that_slurm_would_change_are_refused(tmp_path, name):
    with pytest.raises(WorkflowError, match="submitit-logdir"):
        private_folder(tmp_path / name, tmp_path)
    with pytest.raises(WorkflowError, match="working folder"):
        private_folder(tmp_path, tmp_path / name)


def test_a_log_folder_elsewhere_belongs_to_one_working_folder(tmp_path):
    first, second, logs = (tmp_path / name for name in ("first", "second", "logs"))
    first.mkdir()
    second.mkdir()
    for _ in range(2):
        private_folder(logs, first)
    with pytest.raises(WorkflowError, match=f"belongs to the workflow in {first}"):
        private_folder(logs, second)
    first.rename(tmp_path / "moved")
    private_folder(logs, second)


def test_a_job_that_was_given_an_old_id_is_not_ours(one):
    ours = State("RUNNING", script=f"{one.folder}/submission.sh", name="smk.rule")
    assert one.state_in({"12": ours}) == ours and one.state_in({}) is None
    assert one.state_in({"12": State("RUNNING", script="/home/me/analysis.sh", name="smk.rule")}) is None
    # Slurm names no script of `sbatch --wrap`.
    assert one.state_in({"12": State("RUNNING", name="wrap")}) is None
    assert one.state_in({"12": State("RUNNING", name="smk.rule")}) == State("RUNNING", name="smk.rule")


def test_a_submission_under_way_is_not_taken_for_one_that_a_kill_has_cut(tmp_path, monkeypatch):
    """While a thread calls sbatch for a preempted job, the main thread submits others."""
    for name in ("squeue", "scontrol"):  # they know no job
        (tmp_path / name).write_text("#!/bin/bash\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for token in ("now", "cut"):
        entries = [Entry(token, "f", "r", "smk.rule")]
        ledger.intend(Submission(token, str(tmp_path / token), entries, under_way=token == "now"))
    Recovery(ledger, Owners(tmp_path), 1, None, None).resolve_intents()
    assert [submission.token for submission, _ in ledger.open_tasks()] == ["now"]
