"""squeue may answer from a cache, or leave jobs out: nothing is concluded from one silent source."""

from __future__ import annotations

import signal
from shlex import quote

from snakemake_executor_plugin_submitit import controller

PARTS = """
    rule all:
        input: expand("{k}.txt", k=range(2))

    rule part:
        output: "{k}.txt"
        resources: runtime=5, mem_mb=100
        shell: "echo {wildcards.k} >> ran; until [ -e go ]; do sleep 0.2; done; echo made > {output}"
"""


def test_jobs_that_squeue_leaves_out_are_found_taken_up_and_waited_for(cluster, flow):
    """From the submission on, whose answer gets lost, to the end: as with a cache from before it."""
    one = flow(cluster, PARTS)
    real = one.real("sbatch")
    one.wrap("sbatch", f'{real} "$@"\nkill -9 $PPID')
    one.wrap("squeue", "exit 0")
    assert one.end(one.start()) == -signal.SIGKILL
    one.unlock()
    one.wrap("sbatch", f'{real} "$@"')
    process = one.start()
    one.wait(lambda: one.text.count("Taken up: Slurm job") == 2, "two jobs found and taken up")
    one.wait(lambda: "may come from a cache" in one.text, "a word about the cache")
    one.go()
    assert one.end(process) == 0, one.text
    assert sorted(one.lines("ran")) == ["0", "1"]
    one.expect_submitted(2)


def test_without_scontrol_accounting_keeps_a_job_waited_for_and_tells_of_its_end(cluster, flow):
    one = flow(cluster, PARTS.replace("range(2)", "range(1)"))
    one.wrap("squeue", "exit 0")
    one.wrap("scontrol", 'echo "scontrol: not for you" >&2; exit 1')
    process = one.start()
    one.wait(lambda: "not for you" in one.text, "a word about scontrol")
    calls = len(one.calls("sacct"))
    one.wait(lambda: len(one.calls("sacct")) >= calls + 3, "more looks at accounting")
    assert process.poll() is None and one.states() == ["RUNNING"]
    cluster.run("scancel", one.queue()[0][0])
    assert one.end(process) == 1 and "was cancelled" in one.text, one.text


def test_what_accounting_has_running_for_ever_is_given_up_once_slurmctld_does_not_know_it(cluster, flow):
    """A controller that has lost its state; here the job is there yet, and must not run beside a retry."""
    one = flow(cluster, PARTS.replace("range(2)", "range(1)"))
    process = one.start("--retries", "1")
    one.wait(lambda: one.lines("ran") == ["0"], "a running job")
    (job_id, _, _) = one.queue()[0]
    one.wrap("squeue", f'{one.real("squeue")} "$@" | grep -v "^{job_id}|"; exit 0')
    unknown = 'echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1'
    one.wrap("scontrol", f'case "$*" in *"show job {job_id}") {unknown};; esac\nexec {one.real("scontrol")} "$@"')
    one.wait(lambda: len(one.lines("ran")) == 2, "a retry")
    assert "vanished from Slurm" in one.text
    # It was cancelled before its retry was submitted; Slurm may still be clearing up behind it.
    assert {state for found, _, state in one.queue() if found == job_id} <= {"COMPLETING"}
    one.go()
    assert one.end(process) == 0, one.text
    one.expect_submitted(2)


def test_a_failure_that_squeue_has_not_heard_of_is_not_taken_up(cluster, flow):
    one = flow(cluster, PARTS.replace("range(2)", "range(1)").replace("echo made", "[ -e good ]; echo made"))
    first = one.start()
    one.wait(lambda: one.lines("ran") == ["0"], "a running job")
    old = one.folder / "old"
    old.write_text(one.cluster.run("squeue", "--me", "-h", "-r", "--states=all", "--format=%i|%T|%r|%j|%o"))
    assert "RUNNING" in old.read_text()
    one.kill(first)
    one.go()
    one.wait(lambda: not one.queue(), "the job's failure")
    (one.folder / "good").touch()
    one.wrap("squeue", f"cat {quote(str(old))}")
    code, text = one.run()
    assert code == 0, text
    assert one.lines("ran") == ["0", "0"] and "Taken up" not in text


def test_a_long_list_of_waiting_tasks_is_read_whole(cluster, monkeypatch):
    """scontrol shows 64 characters of it by default: `1,3,5,...` and, cut within a range, `1,3-...`."""
    monkeypatch.setenv("PATH", cluster.environment["PATH"])
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    waiting = [*range(0, 60, 2), *range(61, 70)]
    tasks = ",".join(map(str, waiting[:30])) + ",61-69"
    main = cluster.run("sbatch", "--parsable", "--hold", f"--array={tasks}", "-o/dev/null", "--wrap=true").strip()
    try:
        found = controller.read_scontrol([f"{main}_{k}" for k in range(80)])
    finally:
        cluster.run("scancel", main)
    assert found.keys() == {f"{main}_{k}" for k in waiting}
    assert {state.state for state in found.values()} == {"PENDING"}
