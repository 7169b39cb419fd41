"""Failures made clear by what Slurm says of them, in its own words."""

from __future__ import annotations

import os

import pytest

from snakemake_executor_plugin_submitit.afterwards import Afterwards, memory_advice, parse_ends
from snakemake_executor_plugin_submitit.ledger import Entry, Submission
from snakemake_executor_plugin_submitit.queue import State
from snakemake_executor_plugin_submitit.task import WAITING, Task, TaskVerdict

FAILED = TaskVerdict("failed", "failed on n1 after 3 s", unclear=True)


def task(tmp_path, job_id: str) -> Task:
    return Task(Submission(job_id, str(tmp_path), [Entry("k", "f", "r", "smk.rule")], slurm_id=job_id), 0, "rule")


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Answers of sacct and squeue, and the count of questions."""

    def answer(sacct: str, squeue: str = "exit 1") -> None:
        for name, script in (("sacct", sacct), ("squeue", squeue)):
            path = tmp_path / name
            path.write_text(f"#!/bin/bash\necho {name} >> {tmp_path}/calls\n{script}\n")
            path.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    answer.calls = lambda: (tmp_path / "calls").read_text().split() if (tmp_path / "calls").exists() else []
    return answer


@pytest.mark.parametrize(
    "state, said",
    [
        ("OUT_OF_MEMORY", "ran out of memory (OUT_OF_MEMORY) (of 300M it was seen to use 290M)"),
        ("DEADLINE", "reached its deadline (DEADLINE)"),
        ("CANCELLED by 0", "was cancelled by 0 (CANCELLED)"),
    ],
)
def test_slurm_s_word_is_added_to_an_outcome(tmp_path, slurm, state, said):
    slurm(f"echo '12|{state}|300M||0:0'; echo '12.batch|{state}||290M|0:9'")
    (verdict,) = Afterwards().settle([(task(tmp_path, "12"), FAILED)], 0, 3)
    assert verdict.reason == f"failed on n1 after 3 s; {said}" and verdict.kind == "failed"
    assert verdict.out_of_memory == (state == "OUT_OF_MEMORY")


@pytest.mark.parametrize("state", ["NODE_FAIL", "PREEMPTED", "BOOT_FAIL"])
def test_the_cluster_s_fault_is_submitted_again_although_the_command_failed(tmp_path, slurm, state):
    slurm(f"echo '12|{state}|300M||0:0'")
    assert Afterwards().settle([(task(tmp_path, "12"), FAILED)], 0, 3)[0].kind == "again"
    assert Afterwards().settle([(task(tmp_path, "12"), FAILED)], 0, 0)[0].kind == "failed"


def test_an_end_that_slurm_has_not_noticed_is_waited_for_but_not_for_long(tmp_path, slurm):
    slurm("echo '12|RUNNING|300M||0:0'; echo '13_1|FAILED|300M||1:0'")
    after, pairs = Afterwards(), [(task(tmp_path, "12"), FAILED), (task(tmp_path, "13_1"), FAILED)]
    assert after.settle(pairs, 0, 3) == [WAITING, FAILED]
    assert after.settle(pairs[:1], 2, 3) == [WAITING] and slurm.calls() == [
        "sacct"
    ]  # one question for all, now and then
    assert after.settle(pairs[:1], 11, 3) == [FAILED] and slurm.calls() == ["sacct"] * 2


def test_without_accounting_squeue_is_asked_and_silence_holds_up_nobody(tmp_path, slurm):
    one = task(tmp_path, "12")
    slurm("exit 1", f"echo '12|TIMEOUT|TimeLimit|smk.rule|{tmp_path}/submission.sh'")
    assert "reached its time limit" in Afterwards().settle([(one, FAILED)], 0, 0)[0].reason
    slurm("exit 1")
    after = Afterwards()
    other = task(tmp_path, "14")
    assert after.settle([(other, FAILED)], 0, 3) == [FAILED]
    n = len(slurm.calls())
    assert after.settle([(other, FAILED)], 30, 3) == [FAILED] and len(slurm.calls()) == n


def test_an_end_that_slurm_told_gets_its_numbers_at_once(tmp_path, slurm):
    slurm("echo '12|OUT_OF_MEMORY|2G||0:125'; echo '12.batch|OUT_OF_MEMORY||1.90G|0:125'; echo '13|FAILED|||0:9'")
    starved, killed = task(tmp_path, "12"), task(tmp_path, "13")
    starved.state, killed.state = State("OUT_OF_MEMORY"), State("FAILED")
    told = [
        TaskVerdict("failed", "ran out of memory", True, unclear=True),
        TaskVerdict("failed", "ended", unclear=True),
    ]
    verdicts = Afterwards().settle(list(zip([starved, killed], told, strict=True)), 0, 3)
    assert verdicts[0].reason == "ran out of memory (of 2G it was seen to use 1.90G)"
    assert (
        verdicts[1].reason == "ended; its batch script was killed by signal 9, perhaps for lack of memory on its node"
    )


def test_clear_failures_ask_nothing(tmp_path, slurm):
    slurm("exit 1")
    clear = TaskVerdict("failed", "ran out of memory on n1", True)
    assert Afterwards().settle([(task(tmp_path, "12"), clear)], 0, 3) == [clear] and not slurm.calls()


def test_words_of_accounting():
    text = "12_3|FAILED|500Mc||1:0\n12_3.batch|FAILED|500Mc|4664K|1:0\n12_3.0|OUT_OF_MEMORY|500Mc|1.5G|0:125\n"
    end = parse_ends(text, {"12_3", "99"})["12_3"]
    assert (end.state, end.asked, end.used) == (State("OUT_OF_MEMORY", "step 0"), "500M per CPU", "1.5G")
    text = "7|COMPLETED|0n||0:0\n7+0|x|||0:0\n"
    assert parse_ends(text, {"7"})["7"].asked == ""


def test_advice_names_what_was_asked():
    assert "mem_mb=300;" in memory_advice({"mem_mb": 300})
    assert "`mem_mb_per_cpu=lambda wildcards, attempt: 50 * attempt`" in memory_advice(
        {"mem_mb": 9, "mem_mb_per_cpu": 50}
    )
    assert "did not ask" in memory_advice({"mem_mb": "<TBD>"})
    assert "all memory of its node" in memory_advice({"mem_mb": 0})
