"""Names of resources that people bring from elsewhere, and that would be ignored here without a word.

They come from snakemake-executor-plugin-slurm, Snakemake's documentation, sbatch's long options, and profiles for
Slurm, SGE, PBS and LSF. Each is refused with the right name, because a job that silently runs in another partition,
without its GPU or with another time limit is worse than none. What only looks like a name from elsewhere has a way out:
a name that is limited by `--resources` (or has a scope) is the user's own.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection

# What Snakemake itself gives a job, or reads.
SNAKEMAKE = frozenset({
    "mem", "mem_mb", "mem_mib", "disk", "disk_mb", "disk_mib", "tmpdir", "runtime", "_cores", "_nodes", "_job_count",
    "cpus_per_task",
})  # fmt: skip
CLUSTERS = ("clusters", "cluster", "slurm_cluster", "slurm_clusters")

# The right name, and the wrong ones.
_MEANT = {
    "slurm_partition": "partition partitions queue queues slurm_queue lsf_queue sge_queue pbs_queue",
    "slurm_account": "account accounts project charge_account lsf_project",
    "qos": "quality_of_service",
    "constraint": "constraints feature features node_feature",
    "reservation": "reservations",
    "runtime (minutes, or '2h')": (
        "time walltime wall_time wall_clock timelimit time_limit time_min time_minutes time_hours maxtime max_time "
        "h_rt s_rt hrs hours minutes runtime_min runtime_mins runtime_minutes runtime_h runtime_hr runtime_hrs "
        "runtime_hours runtime_s runtime_sec runtime_seconds run_time max_runtime duration"
    ),
    "mem_mb (per node; or mem='4GB')": (
        "memory memory_mb memory_gb memory_mib memory_gib mem_gb mem_gib mem_g mem_kb mem_bytes mem_per_node "
        "mem_mb_per_node memory_per_node max_mem maxmem max_memory ram ram_mb ram_gb h_vmem s_vmem vmem mem_free "
        "virtual_free rss mem_per_gpu mem_mb_per_gpu mem_per_task mem_mb_per_task mem_total total_mem"
    ),
    "mem_mb_per_cpu": (
        "mem_per_cpu memory_per_cpu mem_per_core mem_mb_per_core mem_per_thread mem_mb_per_thread mem_gb_per_cpu"
    ),
    "threads: of the rule (or cpus_per_task)": (
        "threads thread nthreads n_threads num_threads cpus cpu ncpus n_cpus num_cpus ncpu cpu_count core cores ncores "
        "n_cores num_cores cpus_per_rank cpu_per_task threads_per_task cores_per_task ppn pe smp"
    ),
    "cpus_per_task": "cpus_per_gpu",
    "nodes": "node nnodes n_nodes num_nodes node_count",
    "tasks": "ntasks n_tasks num_tasks ranks nranks n_ranks mpi_ranks nprocs np",
    "tasks_per_node": "ntasks_per_node n_tasks_per_node task_per_node ranks_per_node procs_per_node",
    "tasks or tasks_per_node": "tasks_per_gpu ntasks_per_gpu",
    "gpu (of the whole job) or gpus_per_node": (
        "gpus nvidia_gpu nvidia_gpus amd_gpu amd_gpus ngpu ngpus n_gpu n_gpus num_gpu num_gpus gpu_count gpu_num "
        "gpus_per_job gpus_per_task gpu_per_task gpus_per_socket"
    ),
    "gpus_per_node": "gpu_per_node ngpus_per_node gpus_on_node",
    "gpu_model": "gpu_type gpu_kind gpu_types gpu_name gpu_manufacturer",
    "gres": "generic_resources tres tres_per_node tres_per_job",
    "exclusive": "whole_node exclusive_node",
    "slurm_extra": "extra sbatch_args sbatch_options sbatch_extra extra_args extra_options slurm_args slurm_options",
}  # fmt: skip
_RIGHT = {name: f"use {right}" for right, names in _MEANT.items() for name in names.split()}
# What the executor, or a keyword of the rule, sets.
_RIGHT |= {
    **dict.fromkeys(("requeue", "no_requeue", "slurm_requeue"), "the setting submitit-requeue-limit decides that"),
    **dict.fromkeys(("job_name", "jobname"), "jobs are named by the setting submitit-jobname-prefix, rule, wildcards"),
    **dict.fromkeys(("array", "array_parallelism"), "the executor makes arrays itself (setting submitit-array-size)"),
    "signal": "the setting submitit-signal-delay decides that",
    "chdir": "jobs run in the working folder; leave it out",
    "slurm_logdir": "use the setting submitit-logdir",
    "comment": "the executor sets it (rule and wildcards); leave it out",
}
# Options of sbatch for which there is no resource.
_EXTRA = frozenset({
    "acctg_freq", "bb", "bbf", "begin", "burst_buffer", "cluster_constraint", "contiguous", "core_spec",
    "cores_per_socket", "cpu_freq", "cpus_per_socket", "deadline", "delay_boot", "dependency", "distribution",
    "email", "email_address", "exclude", "excluded_nodes", "export", "export_file", "extra_node_info", "gpu_bind",
    "gpu_freq", "gres_flags", "hint", "hold", "kill_on_invalid_dep", "licence", "licences", "license", "licenses",
    "mail", "mail_type", "mail_user",
    "mcs_label", "mem_bind", "mincpus", "nice", "no_kill", "node_list", "nodefile", "nodelist", "notify_email",
    "ntasks_per_core", "ntasks_per_socket", "open_mode", "overcommit", "oversubscribe", "prefer", "propagate",
    "share", "sockets_per_node", "spread_job", "switches", "thread_spec", "threads_per_core", "time_begin", "tmp",
    "uid", "use_min_nodes", "wait_all_nodes", "wckey", "x11",
})  # fmt: skip
_FLAGS = {
    "excluded_nodes": "exclude", "node_list": "nodelist", "email": "mail-user", "email_address": "mail-user",
    "notify_email": "mail-user", "mail": "mail-user", "share": "oversubscribe", "burst_buffer": "bb",
    "license": "licenses", "licence": "licenses", "licences": "licenses",
}  # fmt: skip
# As a number these may as well limit how many jobs run at a time.
_TEXT_ONLY = frozenset({
    "licence", "licences", "license", "licenses", "lsf_project", "lsf_queue", "pbs_queue", "sge_queue",
    "project", "queue", "queues", "extra", "hold", "share", "tmp", "feature", "features", "duration",
    "mail", "email", "signal", "comment", "array", "switches", "export", "begin", "hint", "prefer",
})  # fmt: skip
_NEAR, _NEARER, _LONG = 0.84, 0.9, 7


def refusal(name: str, value: object, known: Collection[str], own: Collection[str]) -> str | None:
    """Why a resource of this name is refused, and what to use; None for those understood and for the user's own.

    `known`: what the executor understands. `own`: names that `--resources` limits or a scope is given for.
    """
    if name in known or name in SNAKEMAKE or name in own or name.startswith("_"):
        return None
    lower = name.lower()
    if lower in known or lower in SNAKEMAKE:
        return f"no such resource; use {lower}"
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (numeric and lower in _TEXT_ONLY):
        if found := _RIGHT.get(lower) or _RIGHT.get(lower.removeprefix("slurm_")):
            return f"is not understood by this executor; {found}"
        plain = lower.removeprefix("slurm_")
        if plain in _EXTRA:
            flag = _FLAGS.get(plain, plain.replace("_", "-"))
            return f"is not understood by this executor; use slurm_extra='--{flag}=...'"
    if name.startswith("slurm_"):
        plain = name.removeprefix("slurm_")
        near = plain if plain in known else difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
        return f"no such resource; the nearest is {near}"
    near = difflib.get_close_matches(lower, [one for one in known if len(one) > 4], n=1, cutoff=_NEAR)
    if near:
        return f"no such resource; the nearest is {near[0]}"
    # Slips of names from elsewhere; of short ones too much would look like one.
    foreign = [one for one in (*_RIGHT, *_EXTRA) if len(one) >= _LONG]
    near = difflib.get_close_matches(lower, foreign, n=1, cutoff=_NEARER)
    if near and near[0] != lower and (reason := refusal(near[0], value, known, ())):
        return f"no such resource; {near[0]} {reason}"
    return None
