"""When a job is started again, how that is counted and told, and what ends without a second start."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import time

import pytest
from payload_job import Job

from snakemake_executor_plugin_submitit import requeues
from snakemake_executor_plugin_submitit.ledger import Entry, Submission
from snakemake_executor_plugin_submitit.queue import State
from snakemake_executor_plugin_submitit.task import Task, judge_outcome, judge_state

ACCEPTED = '[ "$1" != requeue ] || echo "$@" >> scontrol.txt'
BUSY = "touch ready; while sleep 0.1; do :; done"
HEEDS = 'touch ready; until [ -e "$SNAKEMAKE_STOP_FILE" ]; do sleep 0.05; done; exit 75'
AT_LIMIT, PREEMPTED, UNKNOWN = "echo 0:21", "echo 1:00:00", "exit 1"
LIMIT = {"life": 0, "why": "its time limit"}
PREEMPTION = {"life": 0, "why": "a preemption"}


def asked(tmp_path, command: str, squeue: str, **options) -> tuple[Job, int, str]:
    scontrol = f"cd '{tmp_path}' && {options.pop('scontrol', ACCEPTED)}"
    job = Job(tmp_path, command, squeue=squeue, scontrol=scontrol, **options)
    job.ask_to_leave()
    code, text = job.end()
    return job, code, text


def test_at_its_time_limit_a_command_that_does_not_heed_the_stop_file_fails(tmp_path):
    job, code, text = asked(tmp_path, BUSY, AT_LIMIT)
    assert code == 1 and job.requeues == [] and not (tmp_path / "scontrol.txt").exists()
    assert (tmp_path / "12.stop.0").exists() and "sending SIGTERM" in text
    reason = job.outcome["reason"]
    assert reason.startswith("reached its time limit; raise `runtime`") and "resumable=True" in reason


@pytest.mark.parametrize(
    "command, squeue, options, counted",
    [
        (HEEDS, AT_LIMIT, {}, LIMIT),
        (BUSY, AT_LIMIT, {"resumable": True}, LIMIT),
        (HEEDS, "echo INVALID", {"resumable": True}, LIMIT),  # the signal came late
        (BUSY, PREEMPTED, {}, PREEMPTION),
        (BUSY, UNKNOWN, {}, PREEMPTION),
    ],
    ids=["heeds it", "resumable", "late", "preempted", "unknown"],
)
def test_requeues_are_counted_whatever_they_are_for(tmp_path, command, squeue, options, counted):
    job, code, text = asked(tmp_path, command, squeue, **options)
    assert code == 143 and job.outcome is None and job.requeues == [counted]
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 12\n"
    assert f"requeue 1 of 1 after {counted['why']}" in text


def says(fields: str) -> str:
    return f'[ "$1" = requeue ] || {{ echo "JobId=12 JobName=x {fields} Command=y"; exit; }}; {ACCEPTED}'


@pytest.mark.parametrize(
    "squeue", ["exit 0", "case $5 in *T) echo RUNNING;; *) echo 1:00:00;; esac"], ids=["empty", "old"]
)
@pytest.mark.parametrize(
    "fields, counted",
    [
        ("JobState=RUNNING RunTime=00:59:39 TimeLimit=01:00:00", LIMIT),
        ("JobState=RUNNING RunTime=00:10:00 TimeLimit=1-00:00:00", PREEMPTION),
    ],
    ids=["time limit", "preemption"],
)
def test_the_time_left_is_slurmctld_s_where_squeue_answers_from_a_cache(tmp_path, squeue, fields, counted):
    job, code, _ = asked(tmp_path, HEEDS, squeue, scontrol=says(fields))
    assert code == 143 and job.requeues == [counted]


def test_a_cancelled_job_that_squeue_s_cache_has_running_does_not_requeue_itself(tmp_path):
    scontrol = f"cd '{tmp_path}' && {says('JobState=COMPLETING Reason=None')}"
    job = Job(tmp_path, BUSY, squeue="echo RUNNING", scontrol=scontrol)
    while not (tmp_path / "ready").exists():
        time.sleep(0.05)
    # As Slurm does: to the command's processes and to the batch script's.
    command = int(subprocess.check_output(["pgrep", "--parent", str(job.process.pid)], text=True).split()[0])
    os.kill(job.process.pid, signal.SIGTERM)
    os.killpg(command, signal.SIGTERM)
    code, text = job.end()
    assert code == 143 and "ended by Slurm" in text and job.requeues == []
    assert not (tmp_path / "scontrol.txt").exists()


def test_the_error_of_the_limit_tells_what_the_requeues_were_for(tmp_path):
    (tmp_path / "12.requeues").write_text(json.dumps([LIMIT, {"life": 2, "why": "a preemption"}]))
    job, code, _ = asked(tmp_path, HEEDS, AT_LIMIT, requeues=1, requeue_limit=3)
    assert code == 75 and not (tmp_path / "scontrol.txt").exists()
    assert job.outcome["reason"] == (
        "stopped by its time limit after it was started again 3 times (1 by a new submission, 1 after its time limit, "
        "1 after a preemption); requeue limit: 3"
    )


def test_a_preemption_beyond_the_limit_is_no_requeue(tmp_path):
    job, _, _ = asked(tmp_path, HEEDS, PREEMPTED, requeue_limit=0)
    assert job.outcome["reason"] == "stopped by a preemption; requeue limit: 0"


def test_a_command_that_ends_well_when_asked_is_a_success(tmp_path):
    job, code, _ = asked(tmp_path, HEEDS.replace("exit 75", "exit 0"), AT_LIMIT)
    assert code == 0 and job.outcome["reason"] is None


def test_a_requeue_that_can_t_be_counted_is_none(tmp_path):
    """As on a full file system: without the count it would have no end."""
    (tmp_path / "12.tmp").symlink_to("nowhere/else")
    job = Job(tmp_path, HEEDS.replace("touch ready", "rm 12.tmp; ln -s nowhere/else 12.tmp; touch ready"), [],
              squeue=AT_LIMIT, scontrol=f"cd '{tmp_path}' && {ACCEPTED}")  # fmt: skip
    code, text = job.end()  # not even its start can be noted
    assert code == 1 and "12.tmp: No such file or directory" in text and "Traceback" not in text
    (tmp_path / "12.tmp").unlink()
    job = Job(tmp_path, HEEDS.replace("touch ready", "ln -s nowhere/else 12.tmp; touch ready"), [],
              squeue=AT_LIMIT, scontrol=f"cd '{tmp_path}' && {ACCEPTED}")  # fmt: skip
    job.ask_to_leave()
    code, text = job.end()
    assert code == 75 and "Traceback" not in text and not (tmp_path / "scontrol.txt").exists()
    assert "could not be requeued after its time limit" in text


def test_a_stop_file_that_can_t_be_written_leaves_sigterm(tmp_path):
    command = f"trap 'touch saved; exit 1' TERM; ln -s nowhere/else 12.stop.0; {BUSY}"
    job, code, text = asked(tmp_path, command, PREEMPTED)
    assert code == 143 and job.requeues == [PREEMPTION] and (tmp_path / "saved").exists()
    assert "12.stop.0: No such file or directory" in text


def test_a_requeue_that_slurm_refuses_is_told_and_not_counted(tmp_path, monkeypatch):
    from snakemake_executor_plugin_submitit import payload

    monkeypatch.setattr(payload, "END_MARGIN_S", 2)
    job = Job(tmp_path, HEEDS, squeue="echo 0:04", scontrol="echo held >&2; exit 1")
    job.ask_to_leave()
    job.end()
    assert job.outcome["reason"] == "could not be requeued after its time limit: scontrol: held"
    assert job.requeues == []


# What can't be started.


def test_a_working_folder_that_the_node_has_not_is_named_with_the_node(tmp_path):
    (tmp_path / "file").touch()
    for workdir, problem in ((tmp_path / "gone", "No such file or directory"), (tmp_path / "file", "Not a directory")):
        job = Job(tmp_path, "true", ["out"], workdir=str(workdir))
        code, text = job.end()
        assert code == 1 and "Traceback" not in text
        assert job.outcome["returncode"] is None and job.requeues == []
        assert job.outcome["reason"] == f"could not be started on n7: {workdir}: {problem}"
    entries = [Entry("k", "f", "r", "smk.rule")]
    verdict = judge_outcome(Task(Submission("t", str(tmp_path), entries, slurm_id="12"), 0, "rule"))
    assert verdict.kind == "failed" and "could not be started on n7" in verdict.reason


def test_a_missing_shell_is_named(tmp_path):
    """With a PATH that has no bash."""
    job = Job(tmp_path, "true", squeue="true", scontrol="true")
    job.end()
    assert job.outcome["returncode"] == 0
    (tmp_path / "payload.pkl").rename(tmp_path / "kept")
    environment = {"PATH": str(tmp_path / "bin"), "SLURM_JOB_ID": "12", "SLURMD_NODENAME": "n7"}
    import subprocess
    import sys

    from payload_job import RUN

    subprocess.run([sys.executable, "-P", "-c", RUN, str(tmp_path / "kept")], env=environment, check=False)
    assert job.outcome["reason"] == "could not be started on n7: bash: No such file or directory"


def test_a_command_longer_than_an_argument_may_be_is_run_from_a_file(tmp_path):
    command = f"true {'x' * 60_000} {'ü' * 60_000} && echo $0 > out && stat -c %a $0 >> out"
    job = Job(tmp_path, command, ["out"])
    assert job.end()[0] == 0
    script, mode = (tmp_path / "out").read_text().split()
    assert script == str(tmp_path / "12.command.sh") and mode == "600"


# What Snakemake's side makes of it.


@pytest.fixture
def one(tmp_path) -> Task:
    entries = [Entry("k", "f", "r", "smk.rule")]
    return Task(Submission("t", str(tmp_path), entries, slurm_id="12", resubmissions=1), 0, "rule k=0", requeue_limit=5)


def lives(one: Task, restarts: int, *own: dict) -> None:
    one.started.write_text(f"n1\n{restarts}\n")
    (one.folder / "12.requeues").write_text(json.dumps(own))


def test_each_requeue_is_told_once_with_its_number(one, caplog):
    caplog.set_level(logging.WARNING)
    requeues.tell(one, logging.getLogger())
    lives(one, 0)
    requeues.tell(one, logging.getLogger())
    assert not caplog.messages
    lives(one, 0, LIMIT)  # written down, and it waits in the queue
    requeues.tell(one, logging.getLogger())
    assert caplog.messages == ["Slurm job 12, rule k=0: requeue 2 of 5 after its time limit"]
    lives(one, 3, LIMIT, {"life": 2, "why": "a preemption"})  # two starts since then
    requeues.tell(one, logging.getLogger())
    requeues.tell(one, logging.getLogger())
    assert caplog.messages[1:] == [
        "Slurm job 12, rule k=0: requeued by Slurm (preemption, lost node or scontrol requeue), start 3",
        "Slurm job 12, rule k=0: requeue 3 of 5 after a preemption",
    ]


def test_files_of_an_earlier_version_are_read(one, caplog):
    one.started.write_text("n1\n")
    (one.folder / "12.requeues").write_text("2")
    requeues.tell(one, logging.getLogger())
    assert not caplog.messages and requeues.number_of_next(one) == 2


def ended(one: Task, word: str, limit: int = 5):
    one.requeue_limit = limit
    judge_state(one, State(word), 0, 5, limit)
    return judge_state(one, State(word), 6, 5, limit)


def test_slurm_s_timeout_is_submitted_again_for_what_goes_on_by_itself(one):
    lives(one, 0)
    verdict = ended(one, "TIMEOUT")
    assert verdict.kind == "failed" and "raise `runtime`" in verdict.reason and "resumable=True" in verdict.reason
    one.resumable = True
    assert ended(one, "TIMEOUT").kind == "again" and requeues.number_of_next(one) == 2
    one.resumable = False
    lives(one, 1, LIMIT)  # a later life than the one that left
    assert ended(one, "TIMEOUT").kind == "failed"
    lives(one, 0, LIMIT)  # its command had left, and the requeue came too late
    assert ended(one, "TIMEOUT", limit=2).kind == "again" and requeues.number_of_next(one) == 2


def test_the_limit_of_new_submissions_is_in_the_reason(one):
    lives(one, 1, LIMIT)
    assert ended(one, "PREEMPTED", limit=2).reason.endswith("; requeue limit: 2")
    assert ended(one, "PREEMPTED", limit=3).kind == "again"
