"""Whom the watcher believes, by what each of Slurm's commands answers."""

from __future__ import annotations

import logging
import os

import pytest

from snakemake_executor_plugin_submitit import ExecutorSettings, task
from snakemake_executor_plugin_submitit.ledger import Entry, Submission
from snakemake_executor_plugin_submitit.task import Task
from snakemake_executor_plugin_submitit.watching import Watcher

NOTHING = "exit 0"
UNKNOWN = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
FORBIDDEN = "echo 'not for you' >&2; exit 1"
AWAY = "echo 'Unable to contact slurm controller (connect failure)' >&2; exit 1"
NO_ACCOUNTING = "echo 'Slurm accounting storage is disabled' >&2; exit 1"


@pytest.fixture
def judge(tmp_path, monkeypatch):
    """The verdict on job 12, silent for `silence` seconds, and the calls of scancel."""
    entries = [Entry("k", "f", "r", "smk.rule")]
    one = Task(Submission("t", str(tmp_path), entries, slurm_id="12"), 0, "rule k=0")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    now = [1000.0]
    monkeypatch.setattr("snakemake_executor_plugin_submitit.watching.time.monotonic", lambda: now[0])
    watcher = Watcher(ExecutorSettings(status_interval=1), logging.getLogger("test"), lambda: 5.0)

    def look(silence: float = 10, **scripts: str):
        for name, script in {"sacct": NOTHING, "scancel": NOTHING, **scripts}.items():
            log = f"echo $@ >> '{tmp_path}/{name}.calls'\n"
            (tmp_path / name).write_text(f"#!/bin/bash\n{log}{script}\n")
            (tmp_path / name).chmod(0o755)
        assert watcher.judge([one])[id(one)] == task.WAITING  # the outcome may not be visible yet
        now[0] += silence
        verdict = watcher.judge([one])[id(one)]
        calls = tmp_path / "scancel.calls"
        return verdict, calls.read_text().split() if calls.exists() else []

    return look


def row(state: str, name: str = "smk.rule") -> str:
    return f"echo '12|{state}|None|{name}|(null)'"


def job(state: str, name: str = "smk.rule") -> str:
    fields = f"JobName={name} UserId=me(1) Account=lab JobState={state} Reason=None Dependency=(null) Restarts=0"
    return f"echo 'JobId=12 {fields} Command=(null) WorkDir=/home/me'"


@pytest.mark.parametrize("state", ["RUNNING", "PENDING", "COMPLETING", "SUSPENDED"])
def test_a_job_that_slurmctld_has_is_waited_for_whatever_the_others_say(judge, state):
    for squeue in (NOTHING, row("NODE_FAIL"), row("CANCELLED")):
        assert judge(squeue=squeue, scontrol=job(state), sacct="echo '12|FAILED|n1'") == (task.WAITING, [])


def test_nothing_is_concluded_while_slurmctld_does_not_answer(judge):
    assert judge(10_000, squeue=NOTHING, scontrol=AWAY) == (task.WAITING, [])


@pytest.mark.parametrize("sacct", [NOTHING, NO_ACCOUNTING, "echo '12|RUNNING|n1'"])
def test_what_slurmctld_does_not_know_is_cancelled_and_given_up(judge, sacct):
    """Also where accounting has it running for ever."""
    verdict, cancelled = judge(squeue=NOTHING, scontrol=UNKNOWN, sacct=sacct)
    assert verdict.kind == "failed" and "vanished from Slurm" in verdict.reason
    assert cancelled == ["--quiet", "12"]


def test_what_can_t_be_cancelled_is_not_given_up(judge):
    assert judge(squeue=NOTHING, scontrol=UNKNOWN, scancel=FORBIDDEN)[0] == task.WAITING


def test_an_id_that_is_another_job_s_by_now_is_left_alone(judge):
    for squeue, scontrol in ((NOTHING, job("RUNNING", "other")), (row("RUNNING", "other"), UNKNOWN)):
        verdict, cancelled = judge(squeue=squeue, scontrol=scontrol)
        assert verdict.kind == "failed" and not cancelled


def test_accounting_s_word_of_an_end_is_believed_where_slurmctld_has_forgotten_it(judge):
    verdict, cancelled = judge(squeue=NOTHING, scontrol=UNKNOWN, sacct="echo '12|CANCELLED by 0|n1'")
    assert verdict.kind == "failed" and "was cancelled" in verdict.reason and not cancelled


def test_slurmctld_s_word_of_an_end_is_told_where_there_is_no_other(judge):
    verdict, cancelled = judge(squeue=NOTHING, scontrol=job("OUT_OF_MEMORY"))
    assert verdict.kind == "failed" and "out of memory" in verdict.reason and not cancelled


def test_where_scontrol_may_not_be_used_a_silence_outlasts_every_cache(judge):
    assert judge(60, squeue=NOTHING, scontrol=FORBIDDEN)[0] == task.WAITING
    verdict, cancelled = judge(40, squeue=NOTHING, scontrol=FORBIDDEN)
    assert verdict.kind == "failed" and cancelled == ["--quiet", "12"]


def test_where_scontrol_may_not_be_used_accounting_s_running_is_believed(judge):
    assert judge(10_000, squeue=NOTHING, scontrol=FORBIDDEN, sacct="echo '12|RUNNING|n1'") == (task.WAITING, [])
