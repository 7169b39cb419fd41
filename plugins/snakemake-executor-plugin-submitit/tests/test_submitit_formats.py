"""What Slurm 23.11, 24.11 and 25.05 print, after their manual pages, is read as what 22.05 prints."""

from __future__ import annotations

import pytest

from snakemake_executor_plugin_submitit import queue
from snakemake_executor_plugin_submitit.limits import parse_limits
from snakemake_executor_plugin_submitit.site import (
    Association,
    Site,
    parse_associations,
    parse_config,
    parse_reservations,
    parse_sinfo,
)


@pytest.mark.parametrize(
    ("gres", "gpus", "names"),
    [
        ("gpu:a100:4(S:0-1)", {"a100": 4}, {"gpu"}),
        ("gpu:h100:8(S:0-1),nvme:no_consume:1", {"h100": 8}, {"gpu", "nvme"}),
        ("gpu:a100:2(S:0,2),gpu:v100:1(S:1)", {"a100": 2, "v100": 1}, {"gpu"}),
        ("gpu:nvidia_a100-sxm4-80gb:4(S:1,3,5,7)", {"nvidia_a100-sxm4-80gb": 4}, {"gpu"}),
        ("gpu:nvidia_h100_80gb_hbm3_1g.10gb:7", {"nvidia_h100_80gb_hbm3_1g.10gb": 7}, {"gpu"}),
        ("gpu:4(S:0-1),shard:16(S:0-1)", {"": 4}, {"gpu", "shard"}),
        ("gpu:tesla:2,mps:tesla:200,bandwidth:lustre:no_consume:4G", {"tesla": 2}, {"gpu", "mps", "bandwidth"}),
        ("gpu:gtx:2(IDX:0-1)", {"gtx": 2}, {"gpu"}),
        ("(null)", {}, set()),
        ("N/A", {}, set()),
    ],
)
def test_gres_of_sinfo(gres, gpus, names):
    ((group,),) = [p.groups for p in parse_sinfo(f"gpu|up|infinite|1-infinite|2|128|1031000|{gres}|a100,nvlink")]
    assert dict(group.gpus) == gpus and group.gres == names and group.features == {"a100", "nvlink"}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("cpu*|up|infinite|1-infinite|4|64|512000", (True, "up", None, None, 4, 64, 512000)),
        ("cpu|up|14-00:00:00|2-16|4|256+|1031000+", (False, "up", 20160, 16, 4, 256, 1031000)),
        ("cpu|drain|1:00|1|1|8|7800", (False, "drain", 1, 1, 1, 8, 7800)),
        ("cpu|inact|UNLIMITED|1-UNLIMITED|1|8|7800", (False, "inact", None, None, 1, 8, 7800)),
        ("cpu|up|12:00:00|1-infinite|1024|8|7800", (False, "up", 720, None, 1024, 8, 7800)),
    ],
)
def test_other_columns_of_sinfo(row, expected):
    (one,) = parse_sinfo(f"{row}|(null)|(null)")
    (group,) = one.groups
    assert (one.default, one.state, one.max_time_min, one.max_nodes) == expected[:4]
    assert (group.count, group.cpus, group.memory_mb) == expected[4:]


def test_sinfo_of_clusters_by_name_has_headings():
    text = "CLUSTER: one\ncpu*|up|infinite|1-infinite|4|64|512000|(null)|(null)\n\nslurm: note\n"
    assert [one.name for one in parse_sinfo(text)] == ["cpu"]


@pytest.mark.parametrize(
    "version",
    [
        "AccountingStorageEnforce = associations,limits,qos,safe\nSLURM_VERSION = 23.11.10\nMaxArraySize = 5001",
        "AccountingStorageEnforce= associations, limits,qos,safe\nSLURM_VERSION           = 24.11.5\n"
        "CertgenParameters       = (null)\nMaxArraySize            = 5001\nDataParserParameters    = (null)",
        "AccountingStorageEnforce = associations,limits,qos,safe\nSLURM_VERSION           = 25.05.3\n"
        "HashPlugin              = hash/sha3\nMaxArraySize            = 5001\nMetricsType             = (null)",
    ],
)
def test_scontrol_show_config(version):
    text = (
        "Configuration data as of Thu 01 May 2025 10:00:00\n" + version.replace("Enforce= ", "Enforce = ") + "\n"
        "ClusterName             = one\nLaunchParameters        = (null)\n"
        "SchedulerParameters     = bf_window=4320,x=y\n\n"
        "Cgroup Support Configuration:\nAllowedRAMSpace         = 100.0%\nCgroupPlugin            = autodetect\n"
        "MPI Plugins Configuration:\nPMIxDebug               = 0\n\n"
        "Slurmctld(primary) at head1 is UP\nSlurmctld(backup1) at head2 is UP\n"
    )
    site = Site(config=parse_config(text))
    assert site.max_array_size == 5001 and site.enforces("qos") and site.config["ClusterName"] == "one"
    assert site.config["SchedulerParameters"] == "bf_window=4320,x=y"


def test_sacctmgr_and_scontrol_show_more_than_they_used_to():
    text = "CORP\\jo|lab|one|lab||high,normal|\njo|lab|one|lab|gpu|normal\n||||root||\n"
    assert parse_associations(text, "one") == (
        "lab",
        (Association("lab", "", frozenset({"high", "normal"})), Association("lab", "gpu", frozenset({"normal"}))),
    )
    text = (
        "ReservationName=maint StartTime=2025-05-01T08:00:00 EndTime=2025-05-01T18:00:00 Duration=10:00:00 "
        "Nodes=n[1-9] NodeCnt=9 CoreCnt=576 Features=(null) PartitionName=(null) Flags=MAINT,IGNORE_JOBS,SPEC_NODES "
        "TRES=cpu=1152 Users=root Groups=(null) Accounts=(null) Licenses=(null) State=INACTIVE BurstBuffer=(null) "
        "MaxStartDelay=(null) Comment=ReservationName=none\nReservationName=course+1 StartTime=Thu 01 May 08:00\n"
    )
    assert parse_reservations(text) == {"maint", "course+1"} and parse_reservations("No reservations\n") == frozenset()
    text = (
        "PartitionName=gpu AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED "
        "MaxCPUsPerSocket=UNLIMITED Topology=block JobDefaults=DefCpuPerGPU=16,DefMemPerGPU=120000 DefMemPerCPU=4000 "
        "MaxMemPerNode=UNLIMITED TRES=cpu=16 TRESBillingWeights=CPU=1.0\n"
    )
    assert parse_limits(text)["gpu"].memory_per_node_mb is None


def answers(monkeypatch, tmp_path, name: str, text: str) -> None:
    (tmp_path / "text").write_text(text)
    command = tmp_path / name
    command.write_text(f'#!/bin/bash\necho "$@" > {tmp_path}/asked\nexec cat {tmp_path}/text\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


def test_squeue(monkeypatch, tmp_path):
    """Also of others that the user has there: heterogeneous jobs, arrays that were not split, odd reasons and names."""
    rows = """\
        CLUSTER: one
        7_2|PENDING|ReqNodeNotAvail, UnavailableNodes:n[1-3,7]|smk.a|/f/submission.sh
        7_[3-9%2]|PENDING|JobArrayTaskLimit|smk.a|/f/submission.sh
        12+0|RUNNING|None|het|(null)
        12+1|RUNNING|None|het|(null)
        13|PENDING|Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions|b|/f/b.sh
        14|PENDING|(launch failed requeued held)|c|/f/c.sh
        15|COMPLETED|None|it's a|b|/f/odd | name.sh
        16|POWER_UP_NODE|None|d|/f/d.sh
        17|EXPEDITING|None|e|/f/e.sh
        18|UPDATE_DB|None|e|/f/e.sh
        19|FAILED|NonZeroExitCode|f|/f/f.sh --with arguments
    """
    answers(monkeypatch, tmp_path, "squeue", "\n".join(line.strip() for line in rows.splitlines()) + "\n")
    found = queue.read_squeue()
    assert found["7_2"].detail == "ReqNodeNotAvail, UnavailableNodes:n[1-3,7]" and found["7_2"].alive
    assert found["13"].alive and not found["13"].stuck and found["14"].stuck
    assert [job for job in ("12+0", "16", "17", "18") if not found[job].alive] == []
    assert not found["15"].alive and not found["19"].alive and found["12+0"].script == ""
    assert found["19"].script == "/f/f.sh --with arguments"
    assert "--me" in (tmp_path / "asked").read_text()


def test_sacct(monkeypatch, tmp_path):
    rows = """\
        7_1|CANCELLED by 0|None assigned
        7_2|NODE_FAIL|n1
        7_[4-6%2]|PENDING|None assigned
        8|OUT_OF_MEMORY|n[1-2]
        9|CANCELLED by 1000|n1
        12+0|COMPLETED|n1
        13|RUNNING|n2
    """
    answers(monkeypatch, tmp_path, "sacct", "\n".join(line.strip() for line in rows.splitlines()) + "\n")
    found = queue.read_sacct(["7_1", "7_2", "7_5", "8", "9", "13"])
    assert [found[job].state for job in ("7_1", "7_2", "8", "9", "13")] == [
        "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY", "CANCELLED", "RUNNING",
    ]  # fmt: skip
    assert found["7_1"].detail == "by 0" and found["8"].detail == "on n[1-2]" and "7_5" not in found
