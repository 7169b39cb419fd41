"""What Slurm's own commands say of a cluster, and what can never run on it. The texts are those of Slurm 22.05.8."""

from __future__ import annotations

import pytest

from snakemake_executor_plugin_submitit.clusters import cluster_problem, environment_problem, parse_siblings
from snakemake_executor_plugin_submitit.limits import Limits, limit_problems, parse_limits
from snakemake_executor_plugin_submitit.resources import Request
from snakemake_executor_plugin_submitit.site import (
    Association,
    Site,
    associations_command,
    minutes,
    parse_associations,
    parse_config,
    parse_reservations,
    parse_sinfo,
)

SINFO = """\
main*|up|2-00:00:00|1-infinite|1|16|128000|gpu:a100:4,nvme:1|a100,ib
main*|up|2-00:00:00|1-infinite|1|8|64000|gpu:2|(null)
urgent|up|1:00:00|1-infinite|1|16|128000|gpu:a100:4,nvme:1|a100,ib
urgent|up|1:00:00|1-infinite|1|8|64000|gpu:2|(null)
a100|up|infinite|1|1|16|128000|gpu:a100:4,nvme:1|a100,ib
old|down|30:00|1-infinite|1|8|64000|gpu:2|(null)
empty|up|1:30:00|1-infinite|0|0|0|(null)|(null)
"""
CONFIG = """\
Configuration data as of 2026-11-23T22:53:01
AccountingStorageBackupHost = (null)
AccountingStorageEnforce = associations
AccountingStorageTRES   = cpu,mem,energy,node,billing,fs/disk,vmem,pages,gres/gpu
ClusterName             = mini
EnforcePartLimits       = NO
MaxArraySize            = 101
SLURM_VERSION           = 22.05.8

Slurmctld(primary) at vm is UP
"""
ASSOCIATIONS = """\
root|lab|mini|part|urgent|normal|
root|lab|mini|lab||normal,+long|
root|lab|elsewhere|other||normal|
"""
RESERVATION = (
    "ReservationName=r1 StartTime=2026-11-23T23:00:08 EndTime=2026-11-24T00:00:08 Duration=01:00:00 Nodes=n1 NodeCnt=1 "
    "CoreCnt=8 Features=(null) PartitionName=(null) Flags=SPEC_NODES TRES=cpu=8 Users=root Groups=(null) "
    "Accounts=(null) Licenses=(null) State=ACTIVE BurstBuffer=(null) Watts=n/a MaxStartDelay=(null)\n"
)


def site(**changes) -> Site:
    config = parse_config(CONFIG)
    default, associations = parse_associations(ASSOCIATIONS, config["ClusterName"])
    known = {
        "partitions": parse_sinfo(SINFO), "config": config, "default_account": default, "associations": associations,
        "reservations": parse_reservations(RESERVATION), "user": "root",
    }  # fmt: skip
    return Site(**{**known, **changes})


def problems(where: Site | None = None, **request) -> list[str]:
    lines = (where or site()).problems(Request(**request), "train")
    assert all(line.startswith("rule train: ") and "\n" not in line for line in lines)
    return [line.removeprefix("rule train: ") for line in lines]


def test_partitions_are_read_with_nodes_of_several_kinds():
    main, urgent, a100, old, empty = parse_sinfo(SINFO)
    assert [p.name for p in parse_sinfo(SINFO) if p.default] == ["main"]
    assert main.max_time_min == 2880 and main.max_nodes is None and urgent.max_time_min == 60
    assert a100.max_time_min is None and a100.max_nodes == 1
    assert old.state == "down" and old.max_time_min == 30 and empty.groups == ()
    assert [(g.count, g.cpus, g.memory_mb, dict(g.gpus)) for g in main.groups] == [
        (1, 16, 128000, {"a100": 4}), (1, 8, 64000, {"": 2}),
    ]  # fmt: skip
    assert main.groups[0].features == {"a100", "ib"} and main.groups[0].gres == {"gpu", "nvme"}


def test_sockets_beside_gres_and_lines_of_others_are_passed_over():
    line = "gpu|up|30|1-4|3|64+|512000+|gpu:a100:4(S:0-1),gpu:v100:2(S:0,1)|(null)\nsinfo: warning\n"
    (partition,) = parse_sinfo(line)
    (group,) = partition.groups
    assert dict(group.gpus) == {"a100": 4, "v100": 2} and group.cpus == 64 and partition.max_nodes == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [("infinite", None), ("n/a", None), ("30:00", 30), ("1:00:00", 60), ("2-00:00:00", 2880), ("1-02:03:04", 1563)],
)
def test_times(text, expected):
    assert minutes(text) == expected


def test_configuration_and_arrays():
    assert site().max_array_size == 101 and site().enforces("associations") and not site().enforces("qos")
    assert Site().max_array_size == 1001 and not Site().enforces("associations")
    assert Site(config={"MaxArraySize": "0"}).max_array_size == 1
    assert parse_config(CONFIG)["AccountingStorageTRES"].startswith("cpu,mem")


def test_associations_of_this_cluster_only():
    default, found = parse_associations(ASSOCIATIONS, "mini")
    assert default == "lab"
    assert found == (
        Association("part", "urgent", frozenset({"normal"})),
        Association("lab", "", frozenset({"normal", "long"})),
    )


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"partition": "a100", "gpus_per_node": 4, "gpu_type": "a100", "cpus_per_task": 16, "time_min": 10**6},
        {"partition": "urgent,main", "time_min": 2880},
        {"partition": "old,main"},
        {"nodes": 2, "gpus_per_node": 2, "cpus_per_task": 2, "tasks_per_node": 4, "mem_mb": 64000},
        {"gres": "nvme:1", "constraint": "ib"},
        {"constraint": "nowhere&a100"},
        {"account": "part", "partition": "urgent"},
        {"account": "LAB", "qos": "unknown"},
        {"reservation": "r1"},
        {"mem_mb_per_cpu": 8000, "cpus_per_task": 16},
    ],
)
def test_what_can_run(request_):
    assert problems(**request_) == []


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (
            {"partition": "gpu"},
            "slurm_partition='gpu': does not exist; there are: main (default), urgent, a100, old, empty",
        ),
        ({"partition": "old"}, "slurm_partition='old': is down, not up"),
        ({"time_min": 2881}, "runtime=2881: partition 'main' allows 2880 minutes at most"),
        ({"partition": "a100", "nodes": 2}, "nodes=2: partition 'a100' allows at most 1 per job"),
        ({"nodes": 3}, "nodes=3: partition 'main' has 2"),
        (
            {"cpus_per_task": 17},
            "cpus_per_task (or threads)=17: partition 'main' has no such nodes; its nodes have 16 CPUs, 8 CPUs",
        ),
        (
            {"cpus_per_task": 3, "tasks_per_node": 8},
            "cpus_per_task (or threads)=3 x 8 tasks on a node: partition 'main' has no such nodes; its nodes have "
            "16 CPUs, 8 CPUs",
        ),
        (
            {"mem_mb": 64001, "nodes": 2},
            "mem_mb=64001: partition 'main' has fewer than 2 such nodes; its nodes have 128000 MB, 64000 MB",
        ),
        (
            {"mem_mb_per_cpu": 9000, "cpus_per_task": 16},
            "mem_mb_per_cpu=9000 x 16 CPUs: partition 'main' has no such nodes; its nodes have 128000 MB, 64000 MB",
        ),
        (
            {"gpus_per_node": 4, "nodes": 2},
            "gpu, gpus_per_node or gres (4 per node): partition 'main' has fewer than 2 such nodes; its nodes have "
            "2 GPUs, 4 a100",
        ),
        (
            {"gpus_per_node": 1, "gpu_type": "h100", "partition": "a100"},
            "gpu, gpus_per_node or gres (1 per node of type 'h100'): partition 'a100' has no such nodes; its nodes "
            "have 4 a100",
        ),
        ({"gres": "disk:1"}, "gres='disk:1': partition 'main' has no such nodes; its nodes have gpu, nvme"),
        ({"constraint": "v100"}, "constraint='v100': partition 'main' has no such nodes; its nodes have a100, ib"),
        ({"account": "other"}, "slurm_account='other': user root may not use it; there are: lab, part"),
        (
            {"account": "part"},
            "slurm_account='part': user root may use it in urgent only, not in main; set slurm_partition",
        ),
        ({"reservation": "r2"}, "reservation='r2': does not exist; there are: r1"),
    ],
)
def test_what_never_runs_is_said_with_what_there_is_instead(request_, says):
    assert problems(**request_) == [says]


@pytest.mark.parametrize(
    ("request_", "keys"),
    [
        # A partition that is not there: and what none of the others has.
        ({"partition": "gpu", "nodes": 5}, ["slurm_partition='gpu'", "no partition here can run it: nodes=5"]),
        ({"partition": "gpu,cpu", "account": "x"}, ["slurm_account", "slurm_partition='gpu'", "slurm_partition='cpu'"]),
        ({"partition": "gpu,main", "cpus_per_task": 17}, ["slurm_partition='gpu'", "cpus_per_task"]),
        # One that is down, or too small, is looked at further.
        ({"partition": "old", "gpus_per_node": 3, "time_min": 31}, ["slurm_partition='old'", "runtime=31", "gpu"]),
        ({"nodes": 3, "gpus_per_node": 5, "mem_mb": 10**6}, ["nodes=3", "mem_mb", "gpu"]),
        ({"partition": "a100", "nodes": 2, "constraint": "v100"}, ["nodes=2", "constraint"]),
        ({"account": "part", "reservation": "r2", "nodes": 3}, ["slurm_account", "reservation", "nodes=3"]),
    ],
)
def test_all_problems_of_a_request_are_said_at_once(request_, keys):
    found = problems(**request_)
    assert len(found) == len(keys), found
    assert all(line.startswith(key) for line, key in zip(found, keys, strict=True)), found


def test_an_account_that_cannot_be_had_does_not_hide_a_qos():
    where = site(config={**parse_config(CONFIG), "AccountingStorageEnforce": "associations,limits,qos,safe"})
    account, qos = problems(where, account="other", qos="high")
    assert account.startswith("slurm_account='other'")
    assert qos == "qos='high': not allowed for user root; there are: long, normal"


def test_nothing_is_said_of_what_could_not_be_read():
    """A partition named `a b`, for example, is not the default one."""
    request = Request(nodes=99, account="other")
    assert site().problems(request, "r", {"slurm_partition"}) == []
    assert [line.split(": ")[1][:5] for line in site().problems(request, "r", {"slurm_account"})] == ["nodes"]


def test_kinds_of_nodes_that_only_together_are_missing():
    text = "p*|up|infinite|1-infinite|4|64|64000|(null)|(null)\np*|up|infinite|1-infinite|2|8|64000|gpu:8|(null)\n"
    (line,) = problems(Site(partitions=parse_sinfo(text)), cpus_per_task=16, gpus_per_node=1)
    assert "no nodes with all of these; there are: 4 with 64 CPUs, 64000 MB; 2 with 8 CPUs, 64000 MB, 8 GPUs" in line


def test_what_only_together_is_missing_is_said_beside_what_is_missing_anyway():
    text = (
        "p*|up|infinite|1-infinite|2|64|500000|(null)|(null)\np*|up|infinite|1-infinite|1|64|500000|gpu:4|(null)\n"
        "p*|up|infinite|1-infinite|3|64|64000|gpu:4|(null)\n"
    )
    cpus, both = problems(Site(partitions=parse_sinfo(text)), nodes=2, gpus_per_node=4, mem_mb=500000, cpus_per_task=65)
    assert cpus.startswith("cpus_per_task (or threads)=65: partition 'p' has fewer than 2 such nodes")
    assert both.startswith("mem_mb=500000, gpu, gpus_per_node or gres (4 per node): partition 'p' has fewer than 2")


@pytest.mark.parametrize(("policy", "lines"), [("NO", 0), ("ANY", 0), ("ALL", 1)])
def test_a_job_fits_one_of_its_partitions_or_all_as_the_site_has_it(policy, lines):
    where = site(config={**parse_config(CONFIG), "EnforcePartLimits": policy})
    assert len(problems(where, partition="main,urgent", time_min=61)) == lines


LIMITS = """\
PartitionName=main AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=YES QoS=N/A DefaultTime=NONE \
DisableRootJobs=NO ExclusiveUser=NO ExclusiveTopo=NO GraceTime=0 Hidden=NO MaxNodes=UNLIMITED MaxTime=2-00:00:00 \
MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED MaxCPUsPerSocket=UNLIMITED Nodes=n[1-2] State=UP DefMemPerCPU=2000 \
MaxMemPerNode=UNLIMITED TRES=cpu=16,mem=125G,node=2,billing=16
PartitionName=small AllowGroups=ALL DenyAccounts=x AllowQos=ALL MinNodes=2 MaxCPUsPerNode=12 Nodes=n[1-2] \
DefMemPerNode=UNLIMITED MaxMemPerNode=32000 TRES=cpu=16
PartitionName=cpu MaxMemPerCPU=4000 MinNodes=1
"""


def test_limits_beyond_the_nodes():
    assert parse_limits(LIMITS) == {"main": Limits(), "small": Limits(32000, 12, 2), "cpu": Limits(min_nodes=1)}
    limits = Limits(32000, 12, 2)

    def lines(**request) -> list[str]:
        return limit_problems(limits, Request(**{"nodes": 2, **request}), "it", 64000)

    assert lines() == lines(mem_mb=32000, cpus_per_task=6, tasks_per_node=2) == []
    assert lines(cpus_per_task=5, tasks_per_node=3) == [
        "cpus_per_task (or threads)=5 x 3 tasks on a node: it allows 12 CPUs per node at most"
    ]
    assert lines(mem_mb_per_cpu=8001, cpus_per_task=4) == ["mem_mb_per_cpu=8001 x 4 CPUs: it allows 32000 MB per node"]
    assert len(lines(nodes=1, mem_mb=0, cpus_per_task=13)) == 3
    assert limit_problems(limits, Request(nodes=2, mem_mb=0), "it", 32000) == []


def test_one_cluster_and_no_other():
    federation = (
        "Federation: fed\nSelf:       one:127.0.0.1:6817 ID:1 FedState:ACTIVE Features:\n"
        "Sibling:    two:10.0.0.2:6817 ID:2 FedState:ACTIVE Features: PersistConnSend/Recv:Yes/Yes Synced:Yes\n"
        "Sibling:    three:10.0.0.3:6817 ID:3 FedState:ACTIVE Features:gpu PersistConnSend/Recv:No/No Synced:No\n"
    )
    siblings = parse_siblings(federation)
    assert siblings == ("two", "three") and parse_siblings("") == ()
    assert cluster_problem(None, "one", ()) is cluster_problem("one", "one", siblings) is None
    assert "set clusters='one'" in cluster_problem(None, "one", siblings)
    for other in ("two", "one,two", "all"):
        assert cluster_problem(other, "one", ()).startswith(f"clusters={other!r}: jobs go to this cluster, 'one', only")
    assert "the cluster of this host" in cluster_problem("two", None, ())
    assert environment_problem({}, None) is environment_problem({"SLURM_CLUSTERS": "one"}, "one") is None
    assert "names several clusters" in environment_problem({"SLURM_CLUSTERS": "one,two"}, "one")
    assert "no cluster of this name answers" in environment_problem({"SLURM_CLUSTERS": "two"}, None)


def test_without_a_default_partition_one_must_be_named():
    where = site(partitions=tuple(p for p in parse_sinfo(SINFO) if not p.default))
    assert problems(where) == [
        "slurm_partition: none is given and this cluster has no default; there are: urgent, a100, old, empty"
    ]


def test_qos_is_judged_where_the_cluster_enforces_it():
    where = site(config={**parse_config(CONFIG), "AccountingStorageEnforce": "associations,limits,qos,safe"})
    assert problems(where, qos="long") == []
    assert problems(where, qos="high") == [
        "qos='high': not allowed with slurm_account='lab' (the default); there are: long, normal"
    ]


def test_a_user_without_accounts_is_told():
    assert problems(site(associations=(), default_account=None)) == [
        "slurm_account: user root has no account on this cluster; ask its administrators for one"
    ]
    free = {**parse_config(CONFIG), "AccountingStorageEnforce": "none"}
    assert problems(site(associations=(), config=free), account="any") == []


def test_what_is_unknown_is_no_problem():
    assert problems(Site(), partition="x", account="y", qos="z", reservation="r", nodes=99) == []
    assert problems(site(associations=None), account="any") == []


def test_commands_that_hang_or_fail_leave_the_cluster_unknown(tmp_path, monkeypatch):
    for name, script in (
        ("sinfo", "exec sleep 600"),
        ("sacctmgr", "sleep 600 | cat"),  # and a child holds the output
        ("scontrol", "echo slurm_load_ctl_conf error: Unable to contact slurm controller >&2; exit 1"),
    ):
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = Site.read(timeout_s=1, reservations=True)
    assert [note.split(":")[0] for note in found.notes] == [
        "sinfo", "scontrol show config", "sacctmgr", "scontrol -o show",
    ]  # fmt: skip
    assert found.partitions is found.associations is None and problems(found, partition="x", account="y") == []


@pytest.mark.parametrize("user", ["CORP\\jo", "jo@corp.org", "jo.o'neil"])
def test_users_with_domains(user):
    default, found = parse_associations(f"{user}|lab|mini|lab||normal|\n", "mini")
    assert associations_command(user)[5] == user and default == "lab" and [a.account for a in found] == ["lab"]
