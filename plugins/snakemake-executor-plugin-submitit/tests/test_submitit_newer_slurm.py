"""What Slurm's commands print, recorded from clusters of 26.05.5, 24.11.5 and 20.11.4, and what is read from it.

24.11.5 printed the same as 26.05.5 where only one of them is here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from snakemake_executor_plugin_submitit import controller, queue, slurm
from snakemake_executor_plugin_submitit.payload import seconds_of
from snakemake_executor_plugin_submitit.site import (
    Association,
    parse_associations,
    parse_config,
    parse_reservations,
    parse_sinfo,
)

# A job that was requeued in held state still ends on its node; the nodes' jobs were preempted, cancelled, killed.
SQUEUE = """\
5|CANCELLED|None|wrap|(null)
6|CANCELLED|JobHeldUser|wrap|(null)
1|COMPLETED|None|wrap|(null)
10|COMPLETING|job requeued in held state|wrap|(null)
2|FAILED|NonZeroExitCode|wrap|(null)
3|FAILED|RaisedSignal:9(Killed)|wrap|(null)
9|NODE_FAIL|NodeDown|wrap|(null)
8|PENDING|Resources|wrap|(null)
7|PREEMPTED|None|wrap|(null)
11|RUNNING|None|wrap|(null)
12|PENDING|job requeued in held state|wrap|(null)
13_0|PENDING|ReqNodeNotAvail, May be reserved for other job|t.arr|/home/a b/submission.sh
13_1|PENDING|ReqNodeNotAvail, UnavailableNodes:n2|t.arr|/home/a b/submission.sh
14|PENDING|Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions|x|(null)
15|PENDING|PartitionConfig|x|(null)
16|SPECIAL_EXIT|job requeued in held state|x|(null)
"""
SQUEUE_20 = """\
3|FAILED|NonZeroExitCode|wrap|(null)
4|FAILED|JobLaunchFailure|wrap|(null)
10|NODE_FAIL|NodeDown|wrap|(null)
11|PENDING|job requeued in held state|wrap|(null)
"""
SACCT = """\
1|COMPLETED|n3
2|FAILED|n3
5|CANCELLED by 0|n1
7|PREEMPTED|n2
8|RUNNING|n1
9|NODE_FAIL|n3
11|COMPLETED|n[1-2]
10|PENDING|None assigned
1_0|FAILED|n2
"""
SACCT_20 = """\
11|REQUEUED|n3
6|CANCELLED by 0|n1
"""
SINFO = """\
main*|up|2-00:00:00|1-infinite|1|4|64000|(null)|(null)
main*|up|2-00:00:00|1-infinite|1|8|64000|gpu:h100:2|(null)
main*|up|2-00:00:00|1-infinite|1|8|64000|gpu:a100:2|big,nvlink
scrap|down|2-00:00:00|1-2|1|4|64000|(null)|(null)
urgent|up|1:00:00|1-infinite|1|8|64000|gpu:a100:2|big,nvlink
"""
CONFIG = """\
Configuration data as of 2026-11-27T06:44:54
AccountingStorageEnforce = associations
CertgenParameters       = (null)
ClusterName             = mini
MaxArraySize            = 101
MetricsType             = (null)
PriorityFlags           = ""
SLURM_VERSION           = 26.05.5

Slurmctld(primary) at vm is UP
"""
RESERVATION = (
    "ReservationName=course StartTime=2026-11-27T06:44:42 EndTime=2026-11-27T07:44:42 Duration=01:00:00 Nodes=n1 "
    "NodeCnt=1 CoreCnt=8 Features=(null) PartitionName=(null) Flags=IGNORE_JOBS,SPEC_NODES TRES=cpu=8 "
    "AllowedPartitions=(null) QOS=(null) Users=root Groups=(null) Accounts=(null) Licenses=(null) State=ACTIVE "
    "BurstBuffer=(null) MaxStartDelay=(null)\n"
)


# SubmitLine is not yet there in 24.11.
JOBS = """\
JobId=1 ArrayJobId=1 ArrayTaskId=1-2 ArrayTaskThrottle=2 JobName=t.arr UserId=root(0) GroupId=root(0) MCS_label=N/A \
Priority=1 Nice=0 Account=lab QOS=normal JobState=PENDING Reason=ReqNodeNotAvail,_May_be_reserved_for_other_job \
Dependency=(null) Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:0 Partition=main NodeList= SchedNodeList=n1 \
OverSubscribe=NO Exclusive=NO Contiguous=0 Licenses=(null) LicensesAlloc=(null) Network=(null) \
Command=/home/a b/submission.sh SubmitLine=sbatch --parsable -J t.arr /home/a b/submission.sh WorkDir=/home \
Comment=rule a StdErr= StdIn=/dev/null StdOut=/dev/null
JobId=10 JobName=wrap UserId=root(0) GroupId=root(0) MCS_label=N/A Priority=0 Nice=0 Account=lab QOS=normal \
JobState=PENDING Reason=job_requeued_in_held_state Dependency=(null) Requeue=1 Restarts=1 BatchFlag=1 Reboot=0 \
ExitCode=0:0 Command=(null) SubmitLine=sbatch --parsable -o /dev/null --wrap sleep 999 WorkDir=/home StdErr=
"""


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """Makes a command print a text."""

    def make(name: str, text: str, code: int = 0) -> None:
        (tmp_path / f"{name}.txt").write_text(text)
        command = tmp_path / name
        command.write_text(f'#!/bin/bash\ncat "{tmp_path}/{name}.txt" >&{2 if code else 1}\nexit {code}\n')
        command.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return make


def test_squeue(answers):
    answers("squeue", SQUEUE)
    states = queue.read_squeue()
    assert len(states) == 16
    assert {job_id for job_id, state in states.items() if state.alive} == {"8", "10", "11", "13_0", "13_1", "14", "15"}
    assert {job_id for job_id, state in states.items() if state.stuck} == {"12", "16"}
    assert states["3"].detail == "RaisedSignal:9(Killed)" and states["11"].detail == ""
    assert states["13_1"].detail == "ReqNodeNotAvail, UnavailableNodes:n2"
    assert queue.is_from(states["13_0"].script, Path("/home/a b")) and states["8"].script == ""


def test_squeue_of_20_11(answers):
    answers("squeue", SQUEUE_20)
    states = queue.read_squeue()
    assert [job_id for job_id, state in states.items() if state.stuck] == ["11"]
    assert [job_id for job_id, state in states.items() if state.alive] == []


def test_an_array_s_script_names_its_submission(answers):
    answers("squeue", "8|(null)\n13|/home/a b/submission.sh\n")
    assert queue.find_script(Path("/home/a b")) == "13" and queue.find_script(Path("/home/a")) is None


def test_scontrol_s_jobs(answers):
    answers("scontrol", JOBS)
    states = controller.read_scontrol(["1_1", "1_2", "10", "77"])
    assert set(states) == {"1_1", "1_2", "10"} and states["10"].stuck
    assert states["1_1"] == queue.State(
        "PENDING", "ReqNodeNotAvail,_May_be_reserved_for_other_job", "/home/a b/submission.sh", "t.arr"
    )


def test_jobs_that_scontrol_does_not_know(answers):
    answers("scontrol", "slurm_load_jobs error: Invalid job id specified", code=1)
    assert controller.read_scontrol(["99999"]) == {}


def test_sacct(answers):
    answers("sacct", SACCT)
    states = queue.read_sacct(["1", "5", "7", "8", "9", "10", "11", "1_0", "77"])
    assert "77" not in states and states["5"] == queue.State("CANCELLED", "by 0")
    assert states["11"] == queue.State("COMPLETED", "on n[1-2]") and states["1_0"].state == "FAILED"
    assert {job_id for job_id, state in states.items() if state.alive} == {"8", "10"}


def test_sacct_of_20_11_shows_a_job_requeued_in_held_state_as_requeued(answers):
    answers("sacct", SACCT_20)
    states = queue.read_sacct(["6", "11"])
    assert states["11"].alive and not states["6"].alive


def test_sinfo():
    main, scrap, urgent = parse_sinfo(SINFO)
    assert main.default and main.max_time_min == 2880 and main.max_nodes is None
    assert [dict(group.gpus) for group in main.groups] == [{}, {"h100": 2}, {"a100": 2}]
    assert main.groups[2].features == {"big", "nvlink"} and main.groups[0].features == frozenset()
    assert (scrap.state, scrap.max_nodes, urgent.max_time_min) == ("down", 2, 60)


def test_configuration_reservations_and_associations():
    config = parse_config(CONFIG)
    assert config["ClusterName"] == "mini" and config["MaxArraySize"] == "101"
    assert parse_reservations(RESERVATION) == {"course"}
    assert parse_reservations("No reservations in the system\n") == frozenset()
    rows = "root|lab|mini|root||normal\nroot|lab|mini|lab||normal\n"
    allowed = frozenset({"normal"})
    assert parse_associations(rows, "mini") == ("lab", (Association("root", "", allowed),
                                                             Association("lab", "", allowed)))  # fmt: skip


@pytest.mark.parametrize(("text", "seconds"), [("2-00:00:00", 172800), ("1-23:59:47", 172787), ("0:09", 9)])
def test_time_left(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("sbatch", "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"),
        ("squeue", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"),
        ("scontrol", "slurm_load_ctl_conf error:Unable to contact slurm controller (connect failure)"),
    ],
)
def test_a_controller_that_is_down(answers, command, text):
    answers(command, text, code=1)
    with pytest.raises(slurm.SlurmUnreachableError, match="Unable to contact"):
        slurm.call(command)


@pytest.mark.parametrize(
    "text",
    [
        "sbatch: error: invalid partition specified: nope\n"
        "sbatch: error: Batch job submission failed: Invalid partition name specified",
        "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
        "sbatch: error: Memory specification can not be satisfied\n"
        "sbatch: error: Batch job submission failed: Requested node configuration is not available",
        "sbatch: error: CPU count per node can not be satisfied\n"
        "sbatch: error: Batch job submission failed: Requested node configuration is not available",
        "sbatch: error: Batch job submission failed: Requested reservation is invalid",
        "sbatch: error: Batch job submission failed: Invalid feature specification",
        "sbatch: error: Batch job submission failed: Invalid node name specified",
        "sbatch: error: Invalid generic resource (gres) specification",
        "sbatch: error: Batch job submission failed: Invalid job array specification",
        "sbatch: error: Batch job submission failed: Job dependency problem",
        "sbatch: error: No cluster 'other' known by database.\n"
        "sbatch: error: 'other' can't be reached now, or it is an invalid entry for --cluster.  "
        "Use 'sacctmgr list clusters' to see available clusters.",
        "sbatch: error: Invalid --time specification",
    ],
)
def test_refusals_are_final(answers, text):
    answers("sbatch", text, code=1)
    with pytest.raises(slurm.SlurmError) as error:
        slurm.call("sbatch")
    assert not isinstance(error.value, slurm.SlurmUnreachableError)
    assert text.splitlines()[-1].removeprefix("sbatch: error: ") in str(error.value)
