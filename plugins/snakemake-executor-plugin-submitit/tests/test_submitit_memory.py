"""What the kernel counts of a job's memory, in both versions of control groups and without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from snakemake_executor_plugin_submitit.memory import read, since


def files(folder: Path, **texts: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


@pytest.fixture
def proc(tmp_path) -> Path:
    files(tmp_path / "proc", vmstat="nr_free_pages 7\noom_kill 40")
    files(tmp_path / "proc" / "self")
    return tmp_path / "proc"


def test_version_1_counts_in_each_group_alone(proc, tmp_path):
    files(
        proc / "self", cgroup="5:devices:/x\n4:memory:/slurm_n1/uid_0/job_12/step_batch/task_0\n0::/",
        mountinfo=f"30 25 0:1 / {tmp_path}/dev rw - cgroup cgroup rw,devices\n"
        f"31 25 0:2 / {tmp_path}/mem rw shared:7 - cgroup cgroup rw,memory",
    )  # fmt: skip
    job = tmp_path / "mem/slurm_n1/uid_0/job_12"
    none = "9223372036854771712"
    kills = "oom_kill_disable 0\nunder_oom 0\noom_kill "
    files(
        job, memory__oom_control=kills + "0", memory__limit_in_bytes="314572800", memory__max_usage_in_bytes="314572800"
    )
    files(job / "step_batch", memory__oom_control=kills + "0", memory__limit_in_bytes="314572800")
    files(job / "step_batch/task_0", memory__oom_control=kills + "1", memory__limit_in_bytes=none)
    files(job / "step_0/task_3", memory__oom_control=kills + "2")  # of srun in the job
    assert read(proc) == {"kills": 3, "of_job": True, "limit_mb": 300, "peak_mb": 300}


def test_version_2_counts_for_all_below(proc, tmp_path):
    files(
        proc / "self", cgroup="0::/system.slice/slurmstepd.scope/job_12/step_batch/user/task_0",
        mountinfo=f"31 25 0:2 / {tmp_path}/cg rw - cgroup2 cgroup2 rw",
    )  # fmt: skip
    job = tmp_path / "cg/system.slice/slurmstepd.scope/job_12"
    files(job, memory__events="oom 3\noom_kill 2\noom_group_kill 0", memory__max="max", memory__peak="104857600")
    files(job / "step_batch/user/task_0", memory__events="oom 1\noom_kill 1", memory__max="209715200")
    assert read(proc) == {"kills": 2, "of_job": True, "limit_mb": 200, "peak_mb": 100}
    (job / "memory.peak").unlink()  # a kernel before 5.19
    assert read(proc)["peak_mb"] is None


def test_a_group_of_the_job_without_the_memory_controller(proc, tmp_path):
    files(
        proc / "self", cgroup="0::/slurm/job_12/step_batch",
        mountinfo=f"31 25 0:2 /slurm {tmp_path}/cg rw - cgroup2 cgroup2 rw",
    )  # fmt: skip
    (tmp_path / "cg/job_12/step_batch").mkdir(parents=True)
    assert read(proc) == {"kills": 40, "of_job": False, "limit_mb": None, "peak_mb": None}


def test_without_slurm_s_groups_the_node_s_count_since_the_start(proc):
    files(
        proc / "self", cgroup="4:memory:/user.slice\n0::/user.slice", mountinfo="31 25 0:2 / /c rw - cgroup c rw,memory"
    )
    before = read(proc)
    assert before["kills"] == 40 and not before["of_job"] and since(before, before)["kills"] == 0
    files(proc, vmstat="oom_kill 41")
    assert since(before, read(proc))["kills"] == 1
    (proc / "vmstat").unlink()
    assert since(before, read(proc))["kills"] is None
