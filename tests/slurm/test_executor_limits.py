"""Jobs that reach their time limit, that no node can start, and whose log folder goes away."""

from __future__ import annotations

import shutil
import subprocess

import pytest


def test_only_what_goes_on_is_started_again_at_its_time_limit(cluster, flow):
    """The retry of the other one gets the larger `runtime`; each start is told once."""
    one = flow(
        cluster,
        """
        rule all:
            input: "plain.txt", "goes_on.txt", "heeds.txt"

        rule plain:
            output: "plain.txt"
            resources: runtime=lambda wildcards, attempt: attempt, mem_mb=100
            shell: "echo {resources.runtime} >> plain; [ {resources.runtime} = 2 ] || sleep 600; touch {output}"

        rule goes_on:
            output: "goes_on.txt"
            resources: runtime=1, mem_mb=100, resumable=True, requeue_limit=7
            shell: "echo 1 >> goes_on; [ $(wc -l < goes_on) = 2 ] || sleep 600; touch {output}"

        rule heeds:
            output: "heeds.txt"
            resources: runtime=1, mem_mb=100
            shell:
                "echo 1 >> heeds; [ $(wc -l < heeds) = 2 ] || "
                "until [ -e \\"$SNAKEMAKE_STOP_FILE\\" ]; do sleep 0.2; done; "
                "[ $(wc -l < heeds) = 2 ] && touch {output}"
        """,
    )
    code, text = one.run("--retries", "1")
    assert code == 0, text
    assert one.lines("plain") == ["1", "2"] and len(one.lines("goes_on")) == len(one.lines("heeds")) == 2
    assert "reached its time limit; raise `runtime`" in text and "resumable=True" in text
    # Slurm's signal may come too late for the job to requeue itself, and then it is submitted again.
    assert text.count("requeue 1 of 7") == 1 and "requeue 2" not in text
    assert text.count("requeue 1 of 3") == 1


def test_a_node_without_the_working_folder_is_named_and_not_tried_again(cluster, flow, tmp_path, tmp_path_factory):
    one = flow(
        cluster,
        """
        rule lost:
            output: "lost.txt"
            resources: runtime=5, slurm_extra="--nodelist=n2"
            shell: "touch {output}"
        """,
    )
    hide = ["unshare", "--mount", "bash", "-c", f"mount -t tmpfs tmpfs '{tmp_path}' && exec \"$@\"", "-"]
    tried = subprocess.run([*hide, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"NO NODE WITH OTHER FILES: {tried.stderr.strip()}")
    logs = tmp_path_factory.mktemp("logs") / "logs"
    cluster.stop("slurmd.n2")
    try:
        cluster.start("slurmd.n2", before=hide)
        cluster.wait(lambda: cluster.is_idle("n2"), "n2 idle")
        code, text = one.run("--submitit-logdir", str(logs))
        without_log, unexplained = one.run()  # the node has not the log folder either
    finally:
        cluster.stop("slurmd.n2")
        cluster.start("slurmd.n2")
        cluster.wait(lambda: cluster.is_idle("n2"), "n2 idle")
    assert code == 1 and f"could not be started on n2: {one.folder}: No such file or directory" in text, text
    assert without_log == 1 and "did not begin, and left no log" in unexplained, unexplained
    assert "signal" not in unexplained and str(one.folder / ".snakemake/submitit/lost") in unexplained
    one.expect_submitted(2)
    assert "requeue" not in text


def test_a_log_folder_that_is_removed_is_told_in_one_line(cluster, flow):
    one = flow(
        cluster,
        """
        rule wait:
            output: "wait.txt"
            resources: runtime=5
            shell: "touch running; while [ ! -e go ]; do sleep 0.2; done; touch {output}"
        """,
    )
    process = one.start()
    one.wait(lambda: (one.folder / "running").exists(), "the job")
    shutil.rmtree(one.folder / ".snakemake/submitit")
    assert one.end(process) == 1  # though the job goes on
    assert one.states() == ["RUNNING"]
    assert "somebody has removed the log folder" in one.text and "Traceback" not in one.text, one.text
