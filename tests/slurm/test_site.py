"""What is read from a real cluster, and that `sbatch --test-only` and dry runs agree with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cluster import Cluster

from snakemake_executor_plugin_submitit.resources import request_of
from snakemake_executor_plugin_submitit.site import Site

SNAKEFILE = """\
rule all:
    input: "a", "b"
    localrule: True
rule good:
    output: "a"
    threads: 4
    resources: runtime=30, mem_mb=1000, gpu=1
    shell: "touch {output}"
rule other:
    output: "b"
    threads: config.get("threads", 1)
    resources: **config.get("other", {})
    shell: "touch {output}"
"""


@pytest.fixture
def site(cluster, monkeypatch) -> Site:
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    return Site.read(reservations=True)


def test_the_cluster_is_read(site):
    assert site.notes == ()
    assert {p.name for p in site.partitions} == {"main", "spot", "scrap", "urgent"}
    (main,) = [p for p in site.partitions if p.default]
    (group,) = main.groups
    assert (main.name, main.state, main.max_time_min, main.max_nodes) == ("main", "up", 2880, None)
    assert (group.count, group.cpus, group.memory_mb, dict(group.gpus)) == (2, 8, 64000, {"": 2})
    assert site.default_account == "lab" and "lab" in {a.account for a in site.associations}
    assert site.max_array_size == 101 and site.reservations == frozenset()


def test_only(cluster: Cluster, request, folder: Path) -> bool:
    """Whether sbatch would take the script that submitit writes for this request."""
    from submitit.slurm.slurm import _make_sbatch_string

    script = folder / "job.sh"
    script.write_text(_make_sbatch_string("true", folder, use_srun=False, **request.sbatch_parameters()))
    words = ["sbatch", "--test-only", str(script)]
    return subprocess.run(words, env=cluster.environment, capture_output=True, check=False).returncode == 0


test_only.__test__ = False


@pytest.mark.parametrize(
    "resources",
    [
        {},
        {"slurm_partition": "urgent", "runtime": 60, "slurm_account": "lab"},
        {"nodes": 2, "gpu": 4, "tasks_per_node": 2, "cpus_per_task": 4, "mem_mb": 64000},
        {"gres": "gpu:2", "exclusive": True, "slurm_extra": "--nice=10 --exclude=n2"},
        {"mem_mb_per_cpu": 8000, "cpus_per_task": 8},
        {"slurm_partition": "spot,main", "qos": "normal"},
    ],
)
def test_sbatch_takes_what_has_no_problems(cluster, site, tmp_path, resources):
    request = request_of("r", resources, 1)
    cluster.wait(cluster.all_idle_again, "nodes that work again after the tests before")
    assert site.problems(request, "r") == [] and test_only(cluster, request, tmp_path)


@pytest.mark.parametrize(
    ("resources", "key"),
    [
        ({"slurm_partition": "gpu"}, "slurm_partition"),
        ({"slurm_account": "nobody"}, "slurm_account"),
        ({"nodes": 3}, "nodes"),
        ({"cpus_per_task": 9}, "cpus_per_task"),
        ({"tasks_per_node": 3, "cpus_per_task": 3}, "cpus_per_task"),
        ({"mem_mb": 64001}, "mem_mb"),
        ({"mem_mb_per_cpu": 9000, "cpus_per_task": 8}, "mem_mb_per_cpu"),
        ({"gpus_per_node": 3}, "gpu"),
        ({"gpu": 1, "gpu_model": "a100"}, "gpu"),
        ({"gres": "nvme:1"}, "gres"),
        ({"constraint": "big"}, "constraint"),
        ({"reservation": "course"}, "reservation"),
    ],
)
def test_sbatch_refuses_what_has_problems(cluster, site, tmp_path, resources, key):
    request = request_of("r", resources, 1)
    (line,) = site.problems(request, "r")
    assert line.startswith(f"rule r: {key}") and not test_only(cluster, request, tmp_path)


def test_a_job_over_the_time_limit_would_wait_for_ever(cluster, site, tmp_path):
    """sbatch takes it, where the site has not EnforcePartLimits; it never starts."""
    request = request_of("r", {"slurm_partition": "urgent", "runtime": 61}, 1)
    assert "runtime=61" in site.problems(request, "r")[0] and test_only(cluster, request, tmp_path)


def test_without_accounting_accounts_are_unknown(cluster, site):
    cluster.stop("slurmdbd")
    try:
        without = Site.read(timeout_s=20)
    finally:
        cluster.start("slurmdbd")
    assert without.associations is None and len(without.notes) == 1 and "sacctmgr" in without.notes[0]
    assert without.partitions == site.partitions
    assert without.problems(request_of("r", {"slurm_account": "nobody"}, 1), "r") == []
    assert Site.read().associations == site.associations


def test_without_slurm_nothing_is_known(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    nothing = Site.read()
    assert nothing.partitions is None and nothing.associations is None and len(nothing.notes) == 3
    assert nothing.max_array_size == 1001


def dry_run(cluster: Cluster, folder: Path, *words: str) -> tuple[int, str]:
    (folder / "Snakefile").write_text(SNAKEFILE)
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", "--jobs", "4", *words],
        cwd=folder, env=cluster.environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_dry_run_tells_what_the_cluster_has_not(cluster, tmp_path):
    bad = ["--set-resources", "other:slurm_partition=gpu", "good:gpu=3"]
    code, text = dry_run(cluster, tmp_path, "--executor", "submitit", *bad)
    assert code == 1
    assert "rule other: slurm_partition='gpu': does not exist; there are: main (default)" in text
    assert "rule good: gpu, gpus_per_node or gres (3 per node): partition 'main' has no such nodes" in text
    code, text = dry_run(cluster, tmp_path, "--executor", "submitit", "--set-threads", "other=9")
    assert code == 1 and "rule other: cpus_per_task (or threads)=9: partition 'main' has no such nodes" in text
    # What makes no sense in itself, what this cluster has not, and what both rules share: in one go, rule by rule.
    worse = [
        "--default-resources", "slurm_account=nobody", "--set-resources", "good:tasks=3", "good:nodes=2", "good:gpu=6",
        "other:slurm_partition=gpu",
    ]  # fmt: skip
    code, text = dry_run(cluster, tmp_path, "--executor", "submitit", *worse)
    said = [line for line in text.splitlines() if line.startswith(("rule good: ", "rule other: ", "rules "))]
    assert code == 1 and [line[:40] for line in said] == [
        "rule good: tasks=3: does not divide by n",
        "rules good, other: slurm_account='nobody"[:40],
        "rule good: gpu, gpus_per_node or gres (3",
        "rule other: slurm_partition='gpu': does "[:40],
    ]
    assert dry_run(cluster, tmp_path, "--executor", "submitit", *bad, "--submitit-skip-checks")[0] == 0
    assert dry_run(cluster, tmp_path, "--executor", "submitit")[0] == 0
