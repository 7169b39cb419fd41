"""Names from elsewhere are refused with the right one; names of the user's own are not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from snakemake.resources import Resources
from test_submitit_resources import problems

from snakemake_executor_plugin_submitit import foreign_names
from snakemake_executor_plugin_submitit.asked import functions_as_values
from snakemake_executor_plugin_submitit.resources import KNOWN, Request, request_of


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        # The standard plugin's, Snakemake's documentation.
        ("partition", "spot", "use slurm_partition"),
        ("account", "lab", "use slurm_account"),
        ("nvidia_gpu", 1, "use gpu (of the whole job) or gpus_per_node"),
        ("tasks_per_gpu", 1, "use tasks or tasks_per_node"),
        ("cpus_per_gpu", 4, "use cpus_per_task"),
        ("slurm_requeue", True, "submitit-requeue-limit"),
        ("threads", 4, "use threads: of the rule (or cpus_per_task)"),
        ("gpu_manufacturer", "nvidia", "use gpu_model"),
        # sbatch.
        ("gpus", 1, "use gpu (of the whole job)"),
        ("gpus", "a100:2", "use gpu (of the whole job)"),
        ("time", "1:00:00", "use runtime"),
        ("time_min", 30, "use runtime"),
        ("mem_per_cpu", "2GB", "use mem_mb_per_cpu"),
        ("mem_per_gpu", 8000, "use mem_mb (per node"),
        ("gpus_per_task", 1, "use gpu"),
        ("ntasks", 4, "use tasks"),
        ("ntasks_per_node", 4, "use tasks_per_node"),
        ("nodelist", "n1", "use slurm_extra='--nodelist=...'"),
        ("slurm_exclude", "n1", "use slurm_extra='--exclude=...'"),
        ("mail_user", "a@b.org", "use slurm_extra='--mail-user=...'"),
        ("licenses", "matlab:1", "use slurm_extra='--licenses=...'"),
        ("dependency", "singleton", "use slurm_extra='--dependency=...'"),
        ("job_name", "x", "submitit-jobname-prefix"),
        # Generic profiles for any scheduler.
        ("queue", "short", "use slurm_partition"),
        ("walltime", "02:00:00", "use runtime"),
        ("h_rt", 3600, "use runtime"),
        ("h_vmem", "4G", "use mem_mb"),
        ("memory", "4GB", "use mem_mb"),
        ("mem_gb", 4, "use mem_mb"),
        ("cores", 4, "use threads:"),
        ("email", "a@b.org", "--mail-user"),
        # Slips.
        ("gpus_pernode", 1, "the nearest is gpus_per_node"),
        ("gpu_per_node", 1, "use gpus_per_node"),
        ("runtime_min", 30, "use runtime"),
        ("runtimes", 30, "the nearest is runtime"),
        ("cpu_per_tasks", 2, "the nearest is cpus_per_task"),
        ("Runtime", 30, "use runtime"),
        ("constrain", "a", "the nearest is constraint"),
        ("exlusive", True, "the nearest is exclusive"),
        ("partiton", "spot", "no such resource; partition is not understood by this executor; use slurm_partition"),
        ("ntasks_pernode", 2, "the nearest is tasks_per_node"),
        ("license", "matlab:1", "use slurm_extra='--licenses=...'"),
        ("lsf_queue", "short", "use slurm_partition"),
    ],
)
def test_names_from_elsewhere_are_refused_with_the_right_one(name, value, right):
    (line,) = problems(**{name: value})
    assert line.startswith(f"{name}={value!r}: ") and right in line


@pytest.mark.parametrize(
    "name",
    [
        "api_calls", "io", "network", "bandwidth", "db", "db_connections", "licences", "licenses", "gpu_mem", "mem_db",
        "slots", "disk_mb", "tmpdir", "mem", "disk", "scratch_gb", "heavy", "downloads", "priority", "load", "project",
        "lsf_queue", "googlebatch_machine_type", "machine_type", "node_disk", "io_nodes", "big_mem", "attempts",
    ],
)  # fmt: skip
def test_numbers_that_limit_jobs_by_another_name_are_the_users_own(name):
    assert request_of("a", {name: 3}, 1) == Request()


@pytest.mark.parametrize("name", ["gpus", "memory", "time", "partitions", "slurm_slots", "gpus_pernode"])
def test_a_name_that_the_user_limits_is_the_users_own(name):
    assert problems(**{name: 3})
    assert request_of("a", {name: 3}, 1, own={name}) == Request()


def test_all_of_them_come_at_once_and_the_rest_is_still_read():
    lines = problems(partition="a", gpus=1, time="1:00", nodes=0, cluster="a b")
    assert [line.split("=")[0] for line in lines] == ["partition", "gpus", "time", "nodes", "cluster"]


# sbatch's long options (22.05), without those that say nothing of a job, or too little to be a mistake (`network`).
SBATCH = [
    "account", "acctg_freq", "array", "bb", "bbf", "begin", "chdir", "cluster_constraint", "clusters", "constraint",
    "contiguous", "core_spec", "cores_per_socket", "cpu_freq", "cpus_per_gpu", "cpus_per_task", "deadline",
    "delay_boot", "dependency", "distribution", "exclude", "exclusive", "export", "export_file", "extra_node_info",
    "gpu_bind", "gpu_freq", "gpus", "gpus_per_node", "gpus_per_socket", "gpus_per_task", "gres", "gres_flags",
    "hint", "hold", "job_name", "kill_on_invalid_dep", "licenses", "mail_type", "mail_user", "mcs_label",
    "mem_bind", "mem_per_cpu", "mem_per_gpu", "mincpus", "nice", "no_kill", "no_requeue", "nodefile", "nodelist",
    "nodes", "ntasks", "ntasks_per_core", "ntasks_per_gpu", "ntasks_per_node", "ntasks_per_socket", "open_mode",
    "overcommit", "oversubscribe", "partition", "prefer", "propagate", "qos", "requeue", "reservation", "signal",
    "sockets_per_node", "spread_job", "switches", "thread_spec", "threads_per_core", "time", "time_min", "tmp",
    "uid", "use_min_nodes", "wait_all_nodes", "wckey",
]  # fmt: skip


@pytest.mark.parametrize("name", SBATCH)
def test_every_long_option_of_sbatch_is_understood_or_refused(name):
    known = (*KNOWN, *foreign_names.CLUSTERS)
    assert name in known or foreign_names.refusal(name, "text", known, ())


@pytest.mark.parametrize("name", foreign_names.CLUSTERS)
def test_a_cluster_is_left_to_who_knows_its_name(name):
    assert request_of("a", {name: "here"}, 1).cluster == "here"
    request = request_of("a", {name: "here", "slurm_extra": "-M here"}, 1)
    assert request.sbatch_parameters()["additional_parameters"] == {"nodes": 1, "clusters": "here"}
    other = "slurm_cluster" if name == "cluster" else "cluster"
    assert "leave all of them out" in problems(**{name: "a", other: "b"})[0]


def test_a_partition_that_is_called_as_a_function_of_python_is_named():
    """As in a profile without the quotes of its own; Snakemake's error would not say which resource it was."""
    words = ["slurm_partition=all", "qos='max'", "runtime=max(1, 2)", "slurm_account=lab", "mem_mb=10"]
    rule = SimpleNamespace(resources=Resources.parse(words, allow_expressions=True))
    (problem,) = functions_as_values([rule, rule])
    assert problem.startswith("slurm_partition=all: is a function of Python") and problem.endswith("\"'all'\"")
