"""Snakemake killed, ended and interrupted: nothing lost, nothing doubled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from itertools import groupby
from shlex import quote
from textwrap import dedent

import pytest
from flow import heed_interrupts
from test_executor_life import PARTS


def four_running(one, *arguments: str) -> subprocess.Popen:
    """Snakemake, once four of its tasks run."""
    process = one.start(*arguments)
    one.wait(lambda: one.states().count("RUNNING") == 4, "four running tasks")
    return process


def test_sigkill_while_an_array_is_queued_and_running(cluster, flow):
    one = flow(cluster, PARTS)
    process = four_running(one)
    one.kill(process)
    code, text = one.run("--submitit-logdir", "other")  # whose ledger does not know them
    assert code == 1 and f"submitted with submitit-logdir {one.folder / '.snakemake/submitit'}" in text, text
    again = one.start()
    one.wait(lambda: one.text.count("Taken up: Slurm job") == 8, "eight tasks taken up")
    one.go()
    assert one.end(again) == 0
    assert sorted(one.lines("ran.txt")) == [str(k) for k in range(8)]
    one.expect_submitted(8)
    assert len(one.calls("sbatch")) == 1


@pytest.mark.parametrize("moment", ["before", "after"])
def test_sigkill_at_the_call_of_sbatch(cluster, flow, moment):
    one = flow(cluster, PARTS)
    # sbatch's parent is Snakemake, which dies in the middle of the submission.
    real = one.real("sbatch")
    kill = "kill -9 $PPID"
    body = f"{kill}\nexit 1" if moment == "before" else f'{real} "$@"\n{kill}'
    one.wrap("sbatch", body)
    assert one.end(one.start()) == -signal.SIGKILL
    one.wrap("sbatch", f'exec {real} "$@"')
    one.unlock()
    one.go()
    code, text = one.run()
    assert code == 0, text
    assert sorted(one.lines("ran.txt")) == [str(k) for k in range(8)]
    one.expect_submitted(8)
    assert text.count("Taken up: Slurm job") == (8 if moment == "after" else 0)


def test_jobs_that_ended_after_a_kill_are_recorded_and_not_run_again(cluster, flow):
    one = flow(cluster, PARTS.replace("mem_mb=100", "mem_mb=100\n        params: word='x'"))
    process = four_running(one)
    one.kill(process)
    one.go()
    one.wait(lambda: not one.queue(), "the end of all jobs")
    code, text = one.run()
    assert code == 0, text
    assert "Nothing to be done" in text or "all" in text
    assert len(one.lines("ran.txt")) == 8
    one.expect_submitted(8)
    # Recorded: so that a changed parameter is noticed.
    (one.folder / "Snakefile").write_text((one.folder / "Snakefile").read_text().replace("'x'", "'y'"))
    code, text = one.run("--rerun-triggers", "params")
    assert code == 0, text
    assert len(one.lines("ran.txt")) == 16


def test_jobs_that_ended_while_a_start_began_that_was_killed_are_not_run_again(cluster, flow):
    """Its mark of their beginning is younger than their end, so that Snakemake takes their outputs for incomplete."""
    wait = "touch begun; until [ -e ended ]; do sleep 0.2; done"
    one = flow(cluster, f"onstart: shell('[ ! -e hold ] || {{{{ {wait}; }}}}')\n" + dedent(PARTS))
    one.kill(four_running(one))
    (one.folder / "hold").touch()
    process = one.start("--seconds-between-status-checks", "60")
    one.wait(lambda: (one.folder / "begun").exists(), "a start that has looked at all files")
    one.go()
    one.wait(lambda: not one.queue(), "the end of all jobs")
    (one.folder / "ended").touch()
    one.wait(lambda: one.text.count("Taken up: Slurm job") == 8, "a start that marks jobs as begun")
    one.kill(process)
    assert list((one.folder / ".snakemake" / "incomplete").iterdir())
    code, text = one.run()
    assert code == 0, text
    assert len(one.lines("ran.txt")) == 8
    one.expect_submitted(8)
    code, text = one.run("--forcerun", "part", "--", "out/0.txt")  # what somebody asks for is made again
    assert code == 0 and len(one.lines("ran.txt")) == 9, text


def test_a_job_without_outcome_whose_outputs_are_there_is_closed(cluster, flow):
    """As one that was cancelled in its last moment: no later start would ask for it again."""
    one = flow(cluster, PARTS.replace("range(8)", "range(1)"))
    process = one.start()
    one.wait(lambda: one.states() == ["RUNNING"], "a running job")
    one.kill(process)
    one.go()
    one.wait(lambda: not one.queue(), "the end of the job")
    (outcome,) = one.folder.glob(".snakemake/submitit/part/*/*.outcome.json")
    outcome.write_text("")  # as a node leaves it that has lost its power
    ledger = one.folder / ".snakemake/submitit/ledger.jsonl"
    code, text = one.run()
    assert code == 0 and "Nothing to be done" in text, text
    assert json.loads(ledger.read_text().splitlines()[-1])["outcome"] == "failed"
    code, text = one.run()
    assert code == 0 and ledger.read_text() == ""


def test_what_is_left_of_a_group_is_taken_up_with_it(cluster, flow):
    """To the next start it is two groups, since the job that both stand on is done."""
    one = flow(
        cluster,
        """
        rule all:
            input: expand("second{k}.txt", k=range(2))

        rule first:
            output: "first.txt"
            group: "both"
            resources: runtime=5, mem_mb=100
            shell: "echo first >> ran; echo old > {output}"

        rule second:
            input: "first.txt"
            output: "second{k}.txt"
            group: "both"
            resources: runtime=5, mem_mb=100
            shell: "echo second{wildcards.k} >> ran; until [ -e go ]; do sleep 0.2; done; cp {input} {output}"
        """,
    )
    made = ["first", "second0", "second1"]
    process = one.start("--cores", "2")
    one.wait(lambda: sorted(one.lines("ran")) == made, "a group, half of it made")
    time.sleep(5)  # what is newer than the group's submission is its own
    one.kill(process)
    process = one.start("--cores", "2")
    one.wait(lambda: one.text.count("Taken up: Slurm job") == 2, "the rest taken up")
    one.kill(process)
    again = one.start("--cores", "2")
    one.wait(lambda: one.text.count("Taken up: Slurm job") == 4, "the rest taken up once more")
    one.go()
    assert one.end(again) == 0, one.text
    assert sorted(one.lines("ran")) == made
    one.expect_submitted(1)
    code, text = one.run("--cores", "2")
    assert code == 0 and "Nothing to be done" in text, text
    assert (one.folder / ".snakemake/submitit/ledger.jsonl").read_text() == ""


def test_what_was_made_by_code_that_has_changed_since_does_not_count(cluster, flow):
    """Of two jobs that outlive their Snakemake, one ends before the next start and one does not."""
    one = flow(
        cluster,
        """
        rule all:
            input: expand("{k}.txt", k=range(2))

        rule part:
            output: "{k}.txt"
            resources: runtime=5, mem_mb=100
            shell: "echo {wildcards.k} old >> ran; until [ -e go{wildcards.k} ]; do sleep 0.2; done; "
                   "echo old > {output}"
        """,
    )
    process = one.start()
    one.wait(lambda: len(one.lines("ran")) == 2, "two running jobs")
    one.kill(process)
    (one.folder / "go0").touch()
    one.wait(lambda: len(one.queue()) == 1, "the end of one")
    (one.folder / "Snakefile").write_text((one.folder / "Snakefile").read_text().replace("old", "new"))
    code, text = one.run()
    assert code == 1 and "part k=0 (Slurm job" in text and "start Snakemake again" in text and "k=1" not in text, text
    again = one.start()
    one.wait(lambda: len(one.lines("ran")) == 4, "both anew")
    assert "its code has changed" in one.text
    (one.folder / "go1").touch()
    assert one.end(again) == 0, one.text
    assert one.lines("0.txt") == one.lines("1.txt") == ["new"]
    assert sorted(one.lines("ran")) == ["0 new", "0 old", "1 new", "1 old"]


def test_queued_jobs_of_changed_parameters_are_replaced(cluster, flow):
    one = flow(cluster, PARTS.replace("mem_mb=100", "mem_mb=100\n        params: word='x'"))
    process = four_running(one)
    one.kill(process)
    (one.folder / "Snakefile").write_text((one.folder / "Snakefile").read_text().replace("'x'", "'y'"))
    again = one.start()
    one.wait(lambda: one.text.count("inputs or parameters have changed") == 8, "eight replaced tasks")
    one.go()
    assert one.end(again) == 0
    assert len(one.calls("sbatch")) == 2

    def states() -> list[str]:
        text = cluster.run("sacct", "-X", "-n", "-P", "-o", "State", "-j", ",".join(one.submitted()))
        return sorted(line.split()[0] for line in text.splitlines())  # "CANCELLED by 0"

    # Accounting hears of an end a moment later. A pending rest of an array is one line.
    one.wait(lambda: states().count("COMPLETED") == 8 and set(states()) == {"CANCELLED", "COMPLETED"}, "these states")


def test_jobs_with_older_inputs_are_replaced_whether_they_wait_or_end_meanwhile(cluster, flow):
    one = flow(
        cluster,
        """
        rule all:
            input: "waits.txt", "ends.txt"

        rule second:
            input: "first.txt"
            output: "{k}.txt"
            wildcard_constraints: k="waits|ends"
            resources: runtime=5, mem_mb=100
            shell: "cat {input} > {wildcards.k}.copy; touch {wildcards.k}.begun; "
                   "while [ ! -e {wildcards.k}.go ]; do sleep 0.2; done; cp {wildcards.k}.copy {output}"

        rule first:
            input: "source.txt"
            output: "first.txt"
            resources: runtime=5, mem_mb=100
            shell: "while [ -e wait ]; do sleep 0.2; done; cp {input} {output}"
        """,
    )
    (one.folder / "source.txt").write_text("old\n")
    process = one.start()
    one.wait(lambda: all((one.folder / f"{k}.begun").exists() for k in ("waits", "ends")), "the second jobs")
    time.sleep(5)  # clocks of file servers may differ by as much
    one.kill(process)
    (one.folder / "source.txt").write_text("new\n")
    (one.folder / "wait").touch()
    again = one.start()
    one.wait(lambda: one.text.count(": first; log: ") == 2, "the first job's second submission")
    (one.folder / "ends.go").touch()
    one.wait(lambda: len(one.states()) == 2, "the end of one of the second jobs")
    (one.folder / "wait").unlink()
    one.wait(lambda: "its inputs are newer than it" in one.text, "the other one's replacement")
    (one.folder / "waits.go").touch()
    assert one.end(again) == 0, one.text
    assert one.lines("waits.txt") == one.lines("ends.txt") == ["new"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_and_sighup_leave_jobs_alone(cluster, flow, number):
    one = flow(cluster, PARTS)
    process = four_running(one)
    one.kill(process, number)
    assert process.returncode == 1
    assert "8 Slurm jobs go on" in one.text and len(one.queue()) == 8
    again = one.start()  # without unlocking: the lock was given back
    one.wait(lambda: one.text.count("Taken up: Slurm job") == 8, "eight tasks taken up")
    one.go()
    assert one.end(again) == 0
    assert len(one.lines("ran.txt")) == 8
    one.expect_submitted(8)


@pytest.mark.parametrize("keep", [False, True])
def test_ctrl_c_cancels_unless_told_otherwise(cluster, flow, keep):
    one = flow(cluster, PARTS)
    # What a shell sets for its user's eyes must neither hide jobs nor spare them.
    one.environment |= {"SQUEUE_PARTITION": "urgent", "SCANCEL_STATE": "PENDING", "SQUEUE_FORMAT": "%j"}
    process = four_running(one, *(["--submitit-keep-on-exit"] if keep else []))
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to the whole group, and an impatient user
    assert one.end(process) == 1
    assert "Traceback" not in one.text
    if keep:
        assert len(one.queue()) == 8
    else:
        one.wait(lambda: not one.queue(), "an empty queue")
        assert "Cancelling 8 Slurm jobs" in one.text
    one.go()
    code, text = one.run()
    assert code == 0, text
    assert len(one.calls("sbatch")) == (1 if keep else 2)


def test_ctrl_c_cancels_though_it_has_ended_the_reader_of_the_log_and_nothing_runs_beside_what_it_cancelled(
    cluster, flow
):
    one = flow(
        cluster,
        """
        rule slow:
            output: "slow.txt"
            resources: runtime=5, mem_mb=100
            shell: "until [ -e go ]; do echo $SLURM_JOB_ID >> alive; sleep 0.2; done; echo made > {output}"
        """,
    )
    # A job that goes on after scancel, as one that saves what it has, until the next start has seen it.
    real, called, seen = one.real("scancel"), one.folder / "cancelled", one.folder / "seen"
    later = f'for i in $(seq 3000); do [ -e {quote(str(seen))} ] && break; sleep 0.1; done; {real} "$@"'
    one.wrap("scancel", f"touch {quote(str(called))}; ({later}) > /dev/null 2>&1 &")
    read, write = os.pipe()
    process = subprocess.Popen(
        one.command(), cwd=one.folder, env=one.environment, stdin=subprocess.DEVNULL, stdout=write, stderr=write,
        preexec_fn=heed_interrupts,
    )  # fmt: skip
    os.close(write)
    one.wait(lambda: bool(one.lines("alive")), "a running job")
    os.close(read)  # as of `snakemake 2>&1 | tee log`: a Ctrl-C at the terminal ends both
    os.kill(process.pid, signal.SIGINT)
    one.end(process)
    assert called.exists()
    again = one.start()
    one.wait(lambda: "it has not ended yet" in one.text, "the second start to see the job")
    seen.touch()
    one.wait(lambda: len(set(one.lines("alive"))) == 2, "the second submission")
    one.go()
    assert one.end(again) == 0, one.text
    assert len(list(groupby(one.lines("alive")))) == 2  # first the one, then the other


def test_a_torn_line_of_the_ledger_is_dropped(cluster, flow):
    one = flow(cluster, PARTS)
    process = four_running(one)
    one.kill(process)
    ledger = one.folder / ".snakemake/submitit/ledger.jsonl"
    with ledger.open("a") as file:
        file.write('{"event": "ended", "token": "ab')
    one.go()
    code, text = one.run()
    assert code == 0, text
    one.expect_submitted(8)
    assert all(json.loads(line) for line in ledger.read_text().splitlines())
