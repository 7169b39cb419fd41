"""The test cluster is a real one: jobs, accounting, GPUs by number, preemption, lost nodes, and nothing left behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from cluster import Cluster, ClusterError


def submit(cluster: Cluster, *options: str, script: str) -> str:
    """Submit a script; returns the job's id."""
    return cluster.run("sbatch", "--parsable", *options, "--wrap", script).strip()


def accounted(cluster: Cluster, job: str, field: str = "State") -> str:
    """A field of the job's last line in the accounting, "" while there is none."""
    lines = cluster.run("sacct", "-X", "-n", "-P", "-j", job, "-o", field).split()
    return lines[-1] if lines else ""


def wait_for(cluster: Cluster, job: str, state: str) -> None:
    cluster.wait(lambda: accounted(cluster, job).startswith(state), f"job {job} to be {state}")


def test_jobs_run_and_are_accounted_for(cluster, tmp_path):
    out = tmp_path / "out"
    good = submit(cluster, "--gpus=1", "--cpus-per-task=4", "-o", str(out), script="echo $SLURM_JOB_ACCOUNT")
    bad = submit(cluster, "-o", "/dev/null", script="exit 3")
    wait_for(cluster, good, "COMPLETED")
    wait_for(cluster, bad, "FAILED")
    assert out.read_text() == "lab\n"
    assert accounted(cluster, bad, "ExitCode") == "3:0"
    assert "gres/gpu=1" in accounted(cluster, good, "AllocTRES") and "cpu=4" in accounted(cluster, good, "AllocTRES")


def test_srun_starts_ranks_on_both_nodes(cluster):
    lines = cluster.run("srun", "-N2", "--ntasks-per-node=2", "bash", "-c", "echo $SLURM_PROCID $SLURMD_NODENAME")
    assert sorted(lines.split("\n"))[1:] == ["0 n1", "1 n1", "2 n2", "3 n2"]


def test_more_gpus_than_there_are_wait_or_are_refused(cluster):
    with pytest.raises(ClusterError, match="[Nn]ode configuration is not available|Requested"):
        submit(cluster, "--nodes=1", "--gpus-per-node=3", script="true")


@pytest.mark.parametrize(("partition", "state"), [("spot", "RUNNING"), ("scrap", "PREEMPTED")])
def test_an_urgent_job_displaces_others(cluster, tmp_path, partition, state):
    """`spot` jobs are put back into the queue and run again, `scrap` jobs end."""
    starts = tmp_path / "starts"
    script = f"echo $SLURM_RESTART_COUNT >> {starts}; sleep 3600"
    options = ["-N2", "--exclusive", "--requeue", "-o", "/dev/null"]
    job = submit(cluster, "-p", partition, *options, script=script)
    cluster.wait(starts.exists, "the first start")
    urgent = submit(cluster, "-p", "urgent", "-N2", "--exclusive", "-o", "/dev/null", script="true")
    wait_for(cluster, urgent, "COMPLETED")
    if state == "RUNNING":
        cluster.wait(lambda: len(starts.read_text().splitlines()) == 2, "the second start")
        assert starts.read_text().splitlines() == ["", "1"]
    wait_for(cluster, job, state)
    cluster.run("scancel", job)
    cluster.wait(lambda: not cluster.run("squeue", "-h"), "an empty queue")


def test_a_job_outlives_a_restart_of_the_controller_and_of_the_accounting(cluster, tmp_path):
    go, done = tmp_path / "go", tmp_path / "done"
    job = submit(cluster, "-o", "/dev/null", script=f"until [ -e {go} ]; do sleep 0.2; done; touch {done}")
    wait_for(cluster, job, "RUNNING")
    cluster.stop("slurmctld")
    cluster.start("slurmctld")  # which needs the accounting to start, but not to go on
    cluster.stop("slurmdbd")
    go.touch()
    cluster.wait(done.exists, "the job")
    cluster.start("slurmdbd")
    wait_for(cluster, job, "COMPLETED")


def test_a_lost_node_is_down_and_comes_back(cluster):
    job = submit(cluster, "-w", "n2", "--no-requeue", "-o", "/dev/null", script="sleep 3600")
    wait_for(cluster, job, "RUNNING")
    cluster.stop("slurmd.n2", signal.SIGKILL)
    for pid in cluster.processes_of(job):  # its daemon would go on without slurmd
        os.kill(pid, signal.SIGKILL)
    wait_for(cluster, job, "NODE_FAIL")
    cluster.start("slurmd.n2")
    cluster.wait(lambda: cluster.is_idle("n2"), "n2 to be idle")


def test_two_clusters_do_not_meet_and_down_leaves_nothing(cluster, tmp_path):
    second = Cluster(tmp_path / "second")
    second.up(nodes=1, preempt_signal=True)
    with pytest.raises(ClusterError, match="exists"):
        second.up()
    stubborn = f"trap '' TERM; setsid sleep 3600 & touch {tmp_path / 'begun'}; wait"
    submit(second, "-o", "/dev/null", script=stubborn)
    second.wait((tmp_path / "begun").exists, "the job")
    assert second.nodes() == ["n1"] and len(cluster.nodes()) == 2
    pids = [second.pid(name) for name in ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd.n1")]
    assert all(pids)
    second.down()
    assert not second.root.exists()
    second.wait(lambda: not second._leftovers(), "the end of its job")
    deadline = time.monotonic() + 120
    while left := [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    assert cluster.alive("slurmctld")
