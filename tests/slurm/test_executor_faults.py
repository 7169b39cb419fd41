"""What clusters do to jobs: each ends in a resumed job or a clear failure, never a hang, never a false success."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from shlex import quote

import pytest

# Counts to `to` in steps, keeps the count in a file, and leaves at a step's end when it is asked to. The last step is
# not taken before the job's life number `lives`: so a fault that comes late still meets a job that works.
COUNTER = """
    rule count:
        output: "counted.txt"
        threads: 8
        resources: runtime={runtime}, mem_mb=100, slurm_partition="{partition}"
        shell:
            "n=$(cat state.txt 2> /dev/null || echo 0); echo begin $n >> lives.txt; "
            "while [ $n -lt {to} ]; do "
            "  sleep 1; "
            "  if [ $n -lt {last} ] || [ $(grep -c begin lives.txt) -ge {lives} ]; then n=$((n + 1)); fi; "
            "  echo $n > state.tmp; mv state.tmp state.txt; "
            "  if [ -e \\"$SNAKEMAKE_STOP_FILE\\" ]; then echo asked $n >> lives.txt; exit 75; fi; "
            "done; echo $n > {{output}}"
"""


def counter(partition: str = "main", to: int = 6, runtime: int = 5, lives: int = 1) -> str:
    return COUNTER.format(partition=partition, to=to, last=to - 1, runtime=runtime, lives=lives)


# Never ends by itself.
ENDLESS = 99


def begun(one, *arguments: str) -> subprocess.Popen:
    """Snakemake, once the counter has done its first step."""
    process = one.start(*arguments)
    one.wait(lambda: (one.folder / "state.txt").exists(), "the first step")
    return process


def urgent(cluster, seconds: int = 2) -> None:
    """A job that needs every node."""
    cluster.run(
        "sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--job-name=urgent", "--output=/dev/null",
        f"--wrap=sleep {seconds}",
    )  # fmt: skip


def starts(one) -> list[int]:
    """The counts from which the job's lives began."""
    return [int(line.split()[1]) for line in one.lines("lives.txt") if line.startswith("begin")]


def test_preemption_without_warning_requeues(cluster, flow):
    one = flow(cluster, counter("spot", lives=2))
    process = begun(one)
    urgent(cluster)
    assert one.end(process) == 0, one.text
    assert len(starts(one)) == 2 and starts(one)[1] > 0
    assert one.lines("counted.txt") == ["6"] and "asked" not in one.text
    assert len(one.calls("sbatch")) == 1  # Slurm itself has requeued it


def test_preemption_that_cancels_is_submitted_again(cluster, flow):
    one = flow(cluster, counter("scrap", lives=2))
    process = begun(one)
    urgent(cluster)
    assert one.end(process) == 0, one.text
    assert "was cancelled by a preemption" in one.text and "submitting it again" in one.text
    assert len(starts(one)) == 2 and one.lines("counted.txt") == ["6"]
    assert len(one.calls("sbatch")) == 2


def test_the_requeue_limit_ends_cancelling_preemptions_in_a_failure(cluster, flow):
    one = flow(cluster, counter("scrap", lives=ENDLESS))
    process = begun(one, "--submitit-requeue-limit", "0")
    urgent(cluster)
    assert one.end(process) == 1
    assert "was cancelled by a preemption (PREEMPTED" in one.text and not (one.folder / "counted.txt").exists()


@pytest.mark.parametrize("partition", ["spot", "scrap"])
def test_preemption_with_warning_lets_the_job_save(warning_cluster, flow, partition):
    one = flow(warning_cluster, counter(partition, lives=2))
    process = begun(one, "--submitit-signal-delay", "30")
    urgent(warning_cluster)
    assert one.end(process) == 0, one.text
    asked = [int(line.split()[1]) for line in one.lines("lives.txt") if line.startswith("asked")]
    assert len(asked) == 1 and starts(one) == [0, asked[0]]  # not a step lost
    assert one.lines("counted.txt") == ["6"] and len(one.calls("sbatch")) == 1


def test_sigterm_while_the_job_counts_as_running_requeues(cluster, flow):
    """As in the grace time of a preemption where the site sends no other signal: leaving would end the job for good."""
    one = flow(cluster, counter("spot", lives=2))
    process = begun(one)
    cluster.run("scancel", "--full", "--signal=TERM", one.queue()[0][0])
    assert one.end(process) == 0, one.text
    assert len(starts(one)) == 2 and one.lines("counted.txt") == ["6"]
    assert len(one.calls("sbatch")) == 1


def test_two_time_limits_are_one_too_many_and_the_next_run_goes_on(cluster, flow):
    # It leaves when it is asked to; where the signal comes too late for that, its rule's word counts.
    one = flow(cluster, counter(runtime=1, lives=3).replace("mem_mb=100", "mem_mb=100, resumable=True"))
    code, text = one.run("--submitit-signal-delay", "40", "--submitit-requeue-limit", "1")
    assert code == 1 and not one.queue()
    # On a busy machine Slurm's signal may come so late that the job does not get to requeue itself, or to say so.
    again = text.count("submitting it again")
    logs = "".join(log.read_text() for log in one.folder.glob(".snakemake/submitit/count/*/*_log.out"))
    assert again or "requeue 1 of 1 after its time limit" in logs
    assert text.count("requeue 1 of 1") == 1, text
    late = "reached its time limit before it could be requeued"
    assert "stopped by its time limit after it was started again 1 time (1 " in text or text.count(late) == again + 1
    assert len(starts(one)) == 2 and len(one.calls("sbatch")) == 1 + again
    code, text = one.run()
    assert code == 0, text
    asked = [int(line.split()[1]) for line in one.lines("lives.txt") if line.startswith("asked")]
    assert len(starts(one)) >= 3 and set(asked) <= set(starts(one))  # not a step lost
    assert one.lines("counted.txt") == ["6"]


def test_a_lost_node_requeues_its_job(cluster, flow):
    one = flow(cluster, counter(to=8, lives=2))
    process = begun(one)
    job_id = one.queue()[0][0]
    node = cluster.run("squeue", "-h", "-j", job_id, "-o", "%N").strip()
    cluster.stop(f"slurmd.{node}", signal.SIGKILL)
    for pid in cluster.processes_of(job_id):  # as a node takes them along when it dies
        os.kill(pid, signal.SIGKILL)
    try:
        one.wait(lambda: process.poll() is not None, "the end")
        assert process.returncode == 0, one.text
        assert len(starts(one)) == 2 and one.lines("counted.txt") == ["8"]
    finally:
        cluster.start(f"slurmd.{node}")
        cluster.wait(lambda: cluster.is_idle(node), f"{node} idle")


def test_an_operator_s_scancel_is_a_clear_failure(cluster, flow):
    one = flow(cluster, counter(lives=ENDLESS))
    process = begun(one)
    job_id = one.queue()[0][0]
    cluster.run("scancel", job_id)
    assert one.end(process) == 1
    assert f"Slurm job {job_id} (count): was cancelled" in one.text
    assert "to run this job alone again: snakemake" in one.text


def test_a_pending_job_s_scancel_is_a_clear_failure(cluster, flow):
    one = flow(cluster, counter())
    blocker = cluster.run("sbatch", "--parsable", "-N2", "--exclusive", "-o", "/dev/null", "--wrap=sleep 3600").strip()
    try:
        # Before it runs, the job could start on a node that it waits for.
        cluster.wait(lambda: cluster.run("squeue", "-h", "-j", blocker, "-o", "%T").strip() == "RUNNING", "the blocker")
        process = one.start()
        one.wait(lambda: one.states() == ["PENDING"], "a pending job")
        cluster.run("scancel", one.queue()[0][0])
        assert one.end(process) == 1
    finally:
        cluster.run("scancel", blocker)
    assert "was cancelled" in one.text


def test_slurmctld_restarted_while_jobs_run_and_while_submitting(cluster, flow):
    one = flow(
        cluster,
        """
        rule all:
            input: "second.txt"

        rule first:
            output: "first.txt"
            resources: runtime=5
            shell: "touch running; while [ ! -e go ]; do sleep 0.2; done; touch {output}"

        rule second:
            input: "first.txt"
            output: "second.txt"
            resources: runtime=5
            shell: "touch {output}"
        """,
    )
    process = one.start()
    one.wait(lambda: (one.folder / "running").exists(), "the first job")
    cluster.stop("slurmctld")
    one.wait(lambda: "state is looked up again later" in one.text, "a word about squeue")
    one.go()  # its end is seen without slurmctld, so the second is submitted while there is none
    one.wait(lambda: "trying again" in one.text, "a submission that is tried again")
    cluster.start("slurmctld")
    assert one.end(process) == 0, one.text
    one.expect_submitted(2)


def test_a_lost_answer_of_sbatch_doubles_nothing(cluster, flow):
    one = flow(cluster, counter(to=2))
    real, mark = one.real("sbatch"), quote(str(one.folder / "answered"))
    lost = 'echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2; exit 1'
    one.wrap("sbatch", f'[ -e {mark} ] && exec {real} "$@"\ntouch {mark}; {real} "$@" > /dev/null; {lost}')
    code, text = one.run()
    assert code == 0, text
    assert "Socket timed out" in text
    one.expect_submitted(1)


def test_slurmdbd_stopped_while_a_job_runs_and_a_whole_run_without_it(cluster, flow):
    """One job is preempted and goes on, another is cancelled, a third is submitted: all without accounting."""
    one, cancelled = flow(cluster, counter("spot", lives=2)), flow(cluster, counter(lives=ENDLESS))
    process, ends_badly = begun(one), begun(cancelled)
    cluster.stop("slurmdbd")
    try:
        cluster.run("scancel", cancelled.queue()[0][0])
        assert cancelled.end(ends_badly) == 1 and "was cancelled" in cancelled.text
        urgent(cluster)
        assert one.end(process) == 0, one.text
        assert len(starts(one)) == 2 and one.lines("counted.txt") == ["6"] and len(one.calls("sbatch")) == 1
        code, text = flow(cluster, counter(to=2)).run()
        assert code == 0 and "Resources are compared with the cluster only in part: sacctmgr" in text, text
    finally:
        cluster.start("slurmdbd")
    one.expect_submitted(1)  # slurmctld has told accounting afterwards


def test_a_full_log_file_system_is_a_clear_failure(cluster, flow):
    one = flow(cluster, counter(to=3).replace("echo begin", "head -c 300000 /dev/zero | tr '\\\\0' x; echo begin"))
    logs = one.folder / "logs"
    logs.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", logs], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"NO FULL FILE SYSTEM: mount: {mounted.stderr.strip()}")
    try:
        code, text = one.run("--submitit-logdir", "logs")
        done = (one.folder / "counted.txt").exists()
        # Whatever could still be written: success only with outputs, and otherwise a reason.
        assert (code == 0) == done, text
        if code:
            assert "failed on n" in text or "without an outcome" in text, text
        # Not even the submission fits now.
        subprocess.run(["dd", "if=/dev/zero", f"of={logs / 'filler'}", "bs=4k"], capture_output=True)
        (one.folder / "counted.txt").unlink(missing_ok=True)
        code, text = one.run("--submitit-logdir", "logs")
        assert code == 1 and "No space left on device" in text and "nothing was submitted" in text, text
    finally:
        time.sleep(1)
        subprocess.run(["umount", "-l", logs], check=True)


def test_a_log_file_system_that_stands_still_is_waited_for(cluster, flow):
    """As a file server that does not answer: whoever writes there sleeps in the kernel until it does."""
    one = flow(cluster, counter(to=4))
    image, logs = one.folder / "logs.img", one.folder / "logs"
    logs.mkdir()
    steps = [
        ["truncate", "--size=32M", image], ["mkfs.ext4", "-q", image], ["mount", "-o", "loop", image, logs],
        ["fsfreeze", "--freeze", logs], ["fsfreeze", "--unfreeze", logs],
    ]  # fmt: skip
    try:
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"NO FILE SYSTEM TO FREEZE: {step[0]}: {done.stderr.strip()}")
        process = begun(one, "--submitit-logdir", "logs")
        subprocess.run(steps[-2], check=True)
        try:
            one.wait(lambda: (one.folder / "counted.txt").exists(), "the count")
            time.sleep(6)  # longer than --latency-wait and several status checks
            assert process.poll() is None and "Error" not in one.text, one.text
        finally:
            subprocess.run(steps[-1], check=True)
        assert one.end(process) == 0, one.text
        assert len(starts(one)) == 1 and len(one.calls("sbatch")) == 1
    finally:
        one.wait(lambda: not one.queue(), "an empty queue")
        subprocess.run(["umount", "--lazy", logs], capture_output=True)


def test_a_job_held_by_slurm_does_not_hang(cluster, flow):
    one = flow(cluster, counter(lives=ENDLESS))
    process = begun(one)
    cluster.run("scontrol", "requeuehold", one.queue()[0][0])
    assert one.end(process) == 1
    assert "Slurm holds it and will not start it again" in one.text
    one.wait(lambda: not one.queue(), "an empty queue")  # it would run beside a retry once somebody releases it
