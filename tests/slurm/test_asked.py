"""What rules and groups ask for, as Slurm gives it; and what is refused before anything is submitted."""

from __future__ import annotations

import os
import stat

from cluster import Cluster
from flow import Flow

SHOW = "scontrol show job -o $SLURM_JOB_ID | tr ' ' '\\n' | sed -n 's/^TRES=//p' > {output}"
MEMORY = f"""\
rule all:
    input: "whole", "own", "every", "group"
rule whole:
    output: "whole"
    resources: exclusive=True, clusters="promptecho"
    shell: "{SHOW}"
rule own:
    output: "own"
    resources: exclusive=True, mem_mb=3000
    shell: "{SHOW}"
rule every:
    output: "every"
    resources: mem="0"
    shell: "{SHOW}"
rule first:
    output: "first"
    group: "both"
    resources: mem_mb=100
    shell: "touch {{output}}"
rule second:
    input: "first"
    output: "group"
    group: "both"
    resources: mem_mb=0
    shell: "{SHOW}"
"""


def memory(flow: Flow, name: str) -> str:
    (tres,) = flow.lines(name)
    return dict(pair.split("=") for pair in tres.split(","))["mem"]


def test_jobs_get_all_memory_of_a_node(cluster: Cluster, flow):
    """62.50G are a node's 64000 MB."""
    one = flow(cluster, MEMORY)
    one.environment["SLURM_CLUSTERS"] = "promptecho"  # this cluster's own name changes nothing
    before = os.umask(0o002)
    try:
        code, text = one.run("--default-resources", "mem_mb=1000", "runtime=10", "--submitit-log-access", "group")
    finally:
        os.umask(before)
    assert code == 0, text
    assert [memory(one, name) for name in ("whole", "own", "every", "group")] == ["62.50G", "3000M", "62.50G", "62.50G"]
    # Colleagues can read the logs, and nothing else; nobody can write. What rules make has the user's own modes.
    folder = one.folder / ".snakemake" / "submitit"
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}
    logs = [path for path in modes if path.name.endswith("_log.out")]
    assert len(logs) == 4 and {modes[path] for path in logs} == {0o640}
    assert {modes[above] for path in logs for above in (path.parent, path.parent.parent, folder)} == {0o750}
    closed = [path for path in modes if path.is_file() and path not in logs]
    assert closed and [path for path in closed if modes[path] & 0o077] == []
    assert [path for path in modes if modes[path] & 0o022] == []
    assert stat.S_IMODE((one.folder / "own").stat().st_mode) == 0o664


GROUPS = """\
rule all:
    input: expand("b/{k}", k=range(2)), "c", "d"
rule a:
    output: "a/{k}"
    group: "both"
    threads: 3
    resources: runtime=40, slurm_partition="urgent"
    shell: "touch {output}"
rule b:
    input: "a/{k}"
    output: "b/{k}"
    group: "both"
    resources: runtime=40, slurm_partition="urgent", mem_mb=30000, io=1
    shell: "touch {output}"
rule c:
    output: "c"
    group: "other"
    resources: runtime=5, slurm_partition="main", partition="spot", gpus=1
    shell: "touch {output}"
rule d:
    output: "d"
    resources: runtime=5, clusters="elsewhere", memory="4GB", api_calls=2
    shell: "touch {output}"
rule e:
    input: "d"
    output: "e"
    group: "words"
    resources: slurm_partition="spot"
    shell: "touch {output}"
rule f:
    input: "e"
    output: "f"
    group: "words"
    resources: slurm_partition="main"
    shell: "touch {output}"
"""


def said(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(("rule ", "rules ", "group ")) and ": " in line]


def test_a_dry_run_sums_up_groups_and_knows_names_from_elsewhere(cluster: Cluster, flow):
    one = flow(cluster, GROUPS)
    limit = "runtime=80: partition 'urgent' allows 60 minutes at most"
    of_both = "group both (rules a, b, summed up): "
    code, text = one.run("-n", "all", "f")
    assert code == 1 and sorted(line.split(": ", 1)[0] for line in said(text)) == [
        of_both[:-2], "group words (rules e, f, summed up)", "rule c", "rule c", "rule d", "rule d",
    ], text  # fmt: skip
    for line in (
        of_both + limit,
        "rule c: partition='spot': is not understood by this executor; use slurm_partition",
        "rule d: memory='4GB': is not understood by this executor; use mem_mb",
        "rule d: clusters='elsewhere': jobs go to this cluster, 'promptecho', only",
        "Resource slurm_partition is a string",
    ):
        assert line in text
    # Two of the groups in one job: side by side they need more processors and memory than a node has.
    twice = ["--group-components", "both=2", "--set-threads", "a=5"]
    code, text = one.run("-n", *twice, "--set-resources", "a:runtime=20", "b:mem_mb=32001", "--", "b/0", "b/1")
    assert code == 1 and said(text) == [
        of_both + "cpus_per_task (or threads)=10: partition 'urgent' has no such nodes; its nodes have 8 CPUs",
        of_both + "mem_mb=64002: partition 'urgent' has no such nodes; its nodes have 64000 MB",
    ]
    # A real run says the same, and submits nothing.
    code, text = one.run("--", "b/0")
    assert code == 1 and said(text) == [of_both + limit] and not one.calls("sbatch")


def test_one_cluster_for_one_start(cluster: Cluster, flow):
    one = flow(cluster, GROUPS)
    one.environment["SLURM_CLUSTERS"] = "elsewhere"
    code, text = one.run("-n", "--submitit-skip-checks", "--set-resources", "d:memory=None", "--", "d")
    assert code == 1 and "Nothing was submitted: SLURM_CLUSTERS=elsewhere: no cluster of this name answers" in text


LIMITS = """rule all:
    input: "a", "b", "c", "d"
rule a:
    output: "a"
    threads: 3
    resources: mem_mb=10001
    shell: "touch {output}"
rule b:
    output: "b"
    resources: exclusive=True, nodes=2
    shell: "touch {output}"
rule c:
    output: "c"
    resources: exclusive=True, nodes=2, mem_mb=10000
    shell: "touch {output}"
rule d:
    output: "d"
    resources: exclusive=True, mem_mb_per_cpu=9000, slurm_partition="main"
    shell: "touch {output}"
"""


def test_limits_of_partitions_that_sbatch_would_take_and_never_start(cluster: Cluster, flow):
    one = flow(cluster, LIMITS)
    cluster.run("scontrol", "update", "PartitionName=scrap", "MaxMemPerNode=10000", "MaxCPUsPerNode=2", "MinNodes=2")
    try:
        code, text = one.run("-n", "--default-resources", "slurm_partition=scrap")
    finally:
        free = ("MaxMemPerNode=0", "MaxCPUsPerNode=UNLIMITED", "MinNodes=0")
        cluster.run("scontrol", "update", "PartitionName=scrap", *free)
    assert code == 1 and sorted(said(text)) == [
        "rule a: cpus_per_task (or threads)=3: partition 'scrap' allows 2 CPUs per node at most",
        "rule a: mem_mb=10001: partition 'scrap' allows 10000 MB per node at most",
        "rule a: nodes=1: partition 'scrap' takes no job of fewer than 2",
        "rule b: all memory of a node (mem_mb=0, or exclusive): partition 'scrap' allows 10000 MB; set mem_mb",
        # An exclusive job counts memory per processor for all processors of the node.
        "rule d: mem_mb_per_cpu=9000 x all CPUs: partition 'main' has no such nodes; its nodes have 64000 MB",
    ]
