"""Ranks from srun's environment: which processes are ranks, where they meet, and which GPU is theirs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptecho.cluster.device import gpu_of_rank
from promptecho.cluster.slurm_env import first_host, port, ranks_of_step
from promptecho.errors import ConfigError

# As Slurm 22.05 sets them for `sbatch -N2 --ntasks-per-node=2`, in the batch script and in its first srun.
BATCH = {
    "SLURM_JOB_ID": "17", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NODELIST": "n[1-2]", "SLURM_NTASKS": "4",
    "SLURM_NPROCS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_TASK_PID": "7364",
    "SLURM_NTASKS_PER_NODE": "2", "SLURM_GTIDS": "0",
}  # fmt: skip
STEP = {
    **BATCH, "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_STEP_ID": "0", "SLURM_STEPID": "0",
    "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7",
}  # fmt: skip


def test_a_task_of_a_step_is_a_rank():
    expected = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "n1", "MASTER_PORT": "21717"}
    assert ranks_of_step(STEP, resolves=lambda host: True) == expected


def test_where_the_node_has_no_name_srun_is_on_it():
    asked = []
    assert ranks_of_step(STEP, resolves=lambda host: bool(asked.append(host)))["MASTER_ADDR"] == "10.0.0.7"
    assert asked == ["n1"]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        BATCH,  # the batch script has the job's tasks, but is none of them
        {**STEP, "SLURM_STEP_NUM_TASKS": "1"},
        {**STEP, "SLURM_STEP_ID": "4294967290"},  # the shell of an interactive allocation
        {**STEP, "RANK": "1", "WORLD_SIZE": "2"},  # torchrun, started by srun
    ],
)
def test_other_processes_are_none(environ):
    assert ranks_of_step(environ) == {}


@pytest.mark.parametrize("name", ["SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_PROCID", "SLURM_LOCALID"])
def test_what_is_missing_or_unreadable_is_named(name):
    with pytest.raises(ConfigError, match=f"without {name}: start the ranks with"):
        ranks_of_step({key: value for key, value in STEP.items() if key != name})
    with pytest.raises(ConfigError, match=f"{name}='x' is no number"):
        ranks_of_step({**STEP, name: "x"})


def test_a_master_without_any_address_is_an_error():
    with pytest.raises(ConfigError, match="first node n1 has no address here"):
        ranks_of_step({**STEP, "SLURM_LAUNCH_NODE_IPADDR": ""}, resolves=lambda host: False)


@pytest.mark.parametrize(
    ("nodelist", "host"),
    [
        ("n1", "n1"),
        ("n[1-2]", "n1"),
        ("n[01-03,7],m2", "n01"),
        ("m2,n[01-03,7]", "m2"),
        ("gpu-a100-[010,012-019].cluster", "gpu-a100-010.cluster"),
        ("r[1-2]c[03,05-07]", "r1c03"),
    ],
)
def test_first_host(nodelist, host):
    assert first_host(nodelist) == host


@given(
    prefix=st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True),
    ranges=st.lists(st.tuples(st.integers(0, 999), st.integers(0, 50)), min_size=1, max_size=4),
    width=st.integers(1, 4),
    rest=st.sampled_from(["", ",other", ",m[1-3,9]"]),
)
def test_first_host_of_any_list(prefix, ranges, width, rest):
    numbers = ",".join(f"{a:0{width}}" if not n else f"{a:0{width}}-{a + n:0{width}}" for a, n in ranges)
    assert first_host(f"{prefix}[{numbers}]{rest}") == f"{prefix}{ranges[0][0]:0{width}}"


@pytest.mark.parametrize("nodelist", ["", "[", "n[1-", "n[a-b]", "n1 n2", ",n1"])
def test_no_host_list(nodelist):
    with pytest.raises(ConfigError, match="is no host list"):
        first_host(nodelist)


@given(job=st.integers(1, 2**31), step=st.integers(0, 10**6), restarts=st.integers(0, 1000))
def test_ports_stay_in_their_range_and_apart(job, step, restarts):
    assert 20000 <= port(job, step, restarts) < 30000
    others = {port(job + 1, step, restarts), port(job, step + 1, restarts), port(job, step, restarts + 1)}
    assert port(job, step, restarts) not in others


@pytest.mark.parametrize(
    ("local_rank", "visible", "index"),
    [(None, 4, 0), ("0", 1, 0), ("3", 4, 3), ("3", 1, 0), ("5", 4, 1)],
    ids=["no launcher", "one", "all GPUs of the node", "bound to its own", "more ranks than GPUs"],
)
def test_the_gpu_of_a_rank(local_rank, visible, index):
    assert gpu_of_rank({} if local_rank is None else {"LOCAL_RANK": local_rank}, visible) == index
