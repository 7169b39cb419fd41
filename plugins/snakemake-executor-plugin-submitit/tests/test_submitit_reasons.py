"""squeue's reasons of waiting jobs: which are told, how often, and with what advice."""

from __future__ import annotations

import logging

import pytest

from snakemake_executor_plugin_submitit.ledger import Entry, Submission
from snakemake_executor_plugin_submitit.queue import State
from snakemake_executor_plugin_submitit.reasons import WaitingTold, advice_on, code_of
from snakemake_executor_plugin_submitit.task import Task

DOWN = "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions"


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ("ReqNodeNotAvail, UnavailableNodes:n[2-3]", "sinfo -R"),
        ("ReqNodeNotAvail, May be reserved for other job", "sinfo -R"),
        ("ReqNodeNotAvail", "sinfo -R"),
        (DOWN, "sinfo -R"),
        ("Reservation", "scontrol show reservation"),
        ("ReservationDeleted", "`reservation`"),
        ("Reservation gpu_hours was deleted", "scancel"),
        ("JobHeldUser", "scontrol release"),
        ("JobHeldAdmin", "administrator"),
        ("PartitionDown", "slurm_partition"),
        ("PartitionInactive", "slurm_partition"),
        ("PartitionTimeLimit", "`runtime`"),
        ("PartitionNodeLimit", "`nodes`"),
        ("PartitionConfig", "`nodes`"),
        ("BadConstraints", "`constraint`"),
        ("DependencyNeverSatisfied", "scancel"),
        ("InvalidAccount", "slurm_account"),
        ("QOSNotAllowed", "`qos`"),
        ("QOSMaxWallDurationPerJobLimit", "larger or longer"),
        ("AssocMaxCpuPerNode", "larger or longer"),
        ("QOSMaxMemoryPerJob", "larger or longer"),
        ("QOSMinGRES", "larger jobs"),
        ("AssocGrpCPUMinutesLimit", "budget"),
        ("AssocGrpGRESMinutes", "budget"),
        ("MaxMemPerLimit", "mem_mb"),
    ],
)
def test_what_does_not_pass_by_itself_is_a_warning_with_advice(reason, hint):
    advice = advice_on(reason)
    assert advice.urgent and hint in advice.text


@pytest.mark.parametrize(
    "reason",
    [
        "QOSMaxJobsPerUserLimit", "AssocMaxJobsLimit", "QOSMaxGRESPerUser", "QOSGrpCpuLimit", "AssocGrpGRES",
        "AssocGrpCPURunMinutesLimit", "MaxCpuPerAccount", "Licenses", "BeginTime", "Dependency", "JobArrayTaskLimit",
        "BurstBufferStageIn", "MaxCpuRunMinsPerUser", "MaxPoweredUpNodes", "an administrator's own words",
    ],
)  # fmt: skip
def test_what_passes_is_told_calmly(reason):
    advice = advice_on(reason)
    assert advice.text and not advice.urgent


@pytest.mark.parametrize("reason", ["Priority", "Resources", "None", "", "Prolog", "Cleaning"])
def test_a_turn_that_will_come_is_not_told(reason):
    assert advice_on(reason).text == ""


def test_a_limit_per_user_that_one_job_alone_is_over():
    assert not advice_on("QOSMaxCpuPerUserLimit", others_run=True).urgent
    assert advice_on("QOSMaxCpuPerUserLimit", others_run=False).urgent
    assert not advice_on("QOSGrpCpuLimit", others_run=False).urgent  # others' jobs count too
    assert "unless it asks for more than the whole limit" in advice_on("QOSGrpCpuLimit").text
    assert "unless" not in advice_on("QOSGrpJobsLimit").text + advice_on("QOSMaxJobsPerUserLimit").text


def test_details_are_no_part_of_the_reason():
    assert code_of("ReqNodeNotAvail, UnavailableNodes:n2") == code_of("ReqNodeNotAvail, UnavailableNodes:n[1-2]")


def tasks(token: str, n: int, reason: str) -> list[Task]:
    submission = Submission(token, "/x", [Entry("", "", "", "smk.a")] * n, slurm_id="7")
    return [Task(submission, index, f"a k={index}", state=State("PENDING", reason)) for index in range(n)]


def test_one_line_for_many_and_once(caplog):
    told, array = WaitingTold(logging.getLogger("told")), tasks("t", 1000, "ReqNodeNotAvail, UnavailableNodes:n2")
    with caplog.at_level(logging.INFO):
        told.tell(array, {})
        for one in array[500:]:
            one.state = State("PENDING", "ReqNodeNotAvail, UnavailableNodes:n[2-3]")
        told.tell(array, {})
        assert len(caplog.messages) == 1
        assert "1000 Slurm jobs (7_0, 7_1, ...), such as a k=0: wait" in caplog.text
        told.tell(tasks("u", 1, "ReqNodeNotAvail, UnavailableNodes:n2"), {})
        assert len(caplog.messages) == 2 and "Slurm job 7, a k=0: waits" in caplog.messages[1]
        running = {"1": State("RUNNING")}
        for token in "vw":
            told.tell(tasks(token, 2, "QOSMaxJobsPerUserLimit"), running)
        assert len(caplog.messages) == 3 and caplog.records[2].levelno == logging.INFO
        told.tell(tasks("x", 1, "Priority") + tasks("y", 1, "launch failed requeued held"), running)
        assert len(caplog.messages) == 3  # the latter is judged, not told
        for state in (State("RESV_DEL_HOLD", "Reservation gpu was deleted"), State("SUSPENDED"), State("COMPLETING")):
            (one,) = tasks(state.state, 1, "")
            one.state = state
            told.tell([one], running)
        assert [record.levelno for record in caplog.records[3:]] == [logging.WARNING, logging.INFO]
        assert "reason Reservation gpu was deleted: it can't start" in caplog.messages[3]
        assert "with reason SUSPENDED: it was stopped" in caplog.messages[4]
