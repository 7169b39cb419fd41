"""Resources of a rule become one request, or a list of all that is wrong with them."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from snakemake.common.tbdstring import TBDString
from submitit.slurm.slurm import _make_sbatch_string

from snakemake_executor_plugin_submitit.resources import Request, ResourcesError, request_of


def sbatch_flags(request: Request) -> dict[str, str | bool]:
    """The flags of the script that submitit writes, as sbatch reads them."""
    text = _make_sbatch_string(command="true", folder="logs", use_srun=False, **request.sbatch_parameters())
    flags: dict[str, str | bool] = {}
    for line in text.splitlines():
        if line.startswith("#SBATCH"):
            _, flag = shlex.split(line)
            name, equals, value = flag.removeprefix("--").partition("=")
            flags[name] = value if equals else True
    own = ("job-name", "signal", "output", "error", "open-mode")
    return {name: value for name, value in flags.items() if name not in own}


def problems(**resources) -> list[str]:
    with pytest.raises(ResourcesError) as caught:
        request_of("train", resources, 1)
    assert str(caught.value) == "\n".join(caught.value.problems)
    assert all(line.startswith("rule train: ") and "\n" not in line for line in caught.value.problems)
    return [line.removeprefix("rule train: ") for line in caught.value.problems]


def test_without_resources_nothing_is_asked_but_the_threads():
    assert sbatch_flags(request_of("a", {}, 3)) == {"cpus-per-task": "3", "nodes": "1"}


def test_every_name_reaches_sbatch():
    resources = {
        "slurm_partition": "gpu,gpu-long", "slurm_account": "lab", "qos": "high", "constraint": "a100&[rack1|rack2]",
        "reservation": "course", "runtime": 90, "mem_mb": 16000, "cpus_per_task": 4, "nodes": 2, "tasks_per_node": 8,
        "gpu": 16, "gpu_model": "a100", "gres": "nvme:1", "exclusive": True, "mpi": "srun",
        "slurm_extra": "--nice=100 -x n1,n2 --mail-user 'a b@c.org' --hold",
        # What else is among a job's resources:
        "tmpdir": "/tmp", "mem": "16 GB", "mem_mib": 15259, "disk_mb": 1000, "_cores": 2, "_nodes": 1, "licences": 3,
    }  # fmt: skip
    assert sbatch_flags(request_of("a", resources, 2)) == {
        "partition": "gpu,gpu-long", "account": "lab", "qos": "high", "constraint": "a100&[rack1|rack2]",
        "reservation": "course", "time": "90", "mem": "16000M", "cpus-per-task": "4", "nodes": "2",
        "ntasks-per-node": "8", "gres": "gpu:a100:8,nvme:1", "exclusive": True, "nice": "100", "exclude": "n1,n2",
        "mail-user": "a b@c.org", "hold": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"gpu": 4, "nodes": 2}, (2, None)),
        ({"gpu": 0}, (0, None)),
        ({"gpu_model": "v100", "nodes": 2}, (1, "v100")),
        ({"gpus_per_node": 4, "gpu": 4}, (4, None)),
        ({"gpus_per_node": "a100:4"}, (4, "a100")),
        ({"gres": "gpu"}, (1, None)),
        ({"gres": "gpu:2", "gpu_model": "v100"}, (2, "v100")),
        ({"gres": "gpu:a100:2", "gpu": 2, "gpus_per_node": 2, "gpu_model": "a100"}, (2, "a100")),
        ({"gres": "nvme:1"}, (0, None)),
    ],
)
def test_gpus_from_any_of_their_names(resources, expected):
    request = request_of("a", resources, 1)
    assert (request.gpus_per_node, request.gpu_type) == expected


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"tasks": 8}, (1, 8)),
        ({"tasks": 8, "nodes": 2}, (2, 4)),
        ({"tasks": 8, "tasks_per_node": 4}, (2, 4)),
        ({"tasks": 8, "tasks_per_node": 4, "nodes": 2}, (2, 4)),
        ({"nodes": 3}, (3, 1)),
    ],
)
def test_tasks_and_nodes(resources, expected):
    request = request_of("a", resources, 1)
    assert (request.nodes, request.tasks_per_node) == expected


def test_memory_per_cpu_goes_before_the_default_that_snakemake_sets():
    assert sbatch_flags(request_of("a", {"mem_mb_per_cpu": 4000, "mem_mb": 8000}, 1))["mem-per-cpu"] == "4000M"
    assert "mem" not in sbatch_flags(request_of("a", {"mem_mb_per_cpu": 4000, "mem_mb": 8000}, 1))
    assert problems(mem_mb_per_cpu=4000, mem_mb=9000) == [
        "mem_mb=9000: contradicts mem_mb_per_cpu=4000; keep one of the two"
    ]


ALL = {"cpus-per-task": "1", "nodes": "1", "mem": "0"}


@pytest.mark.parametrize(
    "resources",
    [
        {"mem_mb": 0},
        {"slurm_extra": "--mem=0"},
        {"slurm_extra": "--mem 0G"},
        {"mem_mb": 0, "slurm_extra": "--mem=0"},
    ],
)
def test_all_memory_of_a_node(resources):
    assert sbatch_flags(request_of("a", resources, 1)) == ALL


@pytest.mark.parametrize(
    ("resources", "origin", "memory"),
    [
        ({"mem_mb": 4000}, {"mem_mb": 0}, {"mem": "0"}),
        ({"mem_mb_per_cpu": 4000}, {"mem_mb_per_cpu": 0}, {"mem": "0"}),
        ({"mem_mb_per_cpu": 4000, "mem_mb": 8000}, {"mem_mb_per_cpu": 0, "mem_mb": 0}, {"mem": "0"}),
        ({}, {}, {"mem": "0"}),
        ({"mem_mb": TBDString()}, {"mem_mb": 0}, {"mem": "0"}),
        ({"mem_mb": 4000}, {"mem_mb": 1}, {"mem": "4000M"}),
        ({"mem_mb": 4000}, {"mem_mb": 2}, {"mem": "4000M"}),
        ({"mem_mb_per_cpu": 4000, "mem_mb": 8000}, {"mem_mb_per_cpu": 1, "mem_mb": 0}, {"mem-per-cpu": "4000M"}),
    ],
)
def test_an_exclusive_job_has_all_memory_unless_its_rule_says_otherwise(resources, origin, memory):
    flags = sbatch_flags(request_of("a", {**resources, "exclusive": True}, 1, origin=origin))
    assert flags == {"cpus-per-task": "1", "nodes": "1", "exclusive": True, **memory}


@pytest.mark.parametrize(
    ("per_cpu", "per_node", "wins"),
    [(0, 0, "mem-per-cpu"), (1, 0, "mem-per-cpu"), (2, 1, "mem-per-cpu"), (0, 1, "mem"), (1, 2, "mem")],
)
def test_memory_that_was_said_more_closely_counts(per_cpu, per_node, wins):
    resources = {"mem_mb_per_cpu": 4000, "mem_mb": 64000}
    flags = sbatch_flags(request_of("a", resources, 1, origin={"mem_mb_per_cpu": per_cpu, "mem_mb": per_node}))
    assert set(flags) == {"cpus-per-task", "nodes", wins}


def test_memory_that_is_said_twice_is_refused():
    assert problems(mem_mb=0, mem_mb_per_cpu=100)[0].startswith("mem_mb=0: contradicts mem_mb_per_cpu=100")
    assert problems(mem_mb=9000, slurm_extra="--mem=0")[0].startswith("mem_mb=9000: contradicts --mem=0")
    with pytest.raises(ResourcesError, match="mem_mb=10: contradicts mem_mb_per_cpu=5"):
        request_of("a", {"mem_mb": 10, "mem_mb_per_cpu": 5}, 1, origin={"mem_mb": 2, "mem_mb_per_cpu": 2})


def test_what_is_not_known_yet_is_unset():
    assert request_of("a", {"mem_mb": TBDString(), "gpu": TBDString(), "qos": None}, 1) == Request()


@pytest.mark.parametrize("word", [False, 0, "no", "False", None])
def test_not_exclusive(word):
    assert request_of("a", {"exclusive": word}, 1) == Request()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("nodes", 0, "must be at least 1"),
        ("nodes", 1.5, "must be a whole number"),
        ("nodes", True, "must be a whole number"),
        ("nodes", "2", "must be a whole number"),
        ("runtime", "2h", "must be a whole number"),
        ("runtime", -1, "must be at least 1"),
        ("mem_mb", -1, "must be at least 0"),
        ("mem_mb_per_cpu", 0, "mem_mb=0 is all memory of a node"),
        ("gpu", -1, "must be at least 0"),
        ("gpu", "a100:2", "must be a whole number"),
        ("gpus_per_node", "four", "must be a whole number or TYPE:NUMBER"),
        ("gres", "gpu:2:a100:3", "must be NAME, NAME:NUMBER or NAME:TYPE:NUMBER"),
        ("gres", "'gpu:2'", "must be NAME"),
        ("gres", "gpu:1,gpu:a100:1", "names GPUs twice"),
        ("slurm_partition", "", "must be a name, without spaces or quotes; leave it out"),
        ("slurm_partition", "main\n#SBATCH --uid=0", "must be a name"),
        ("slurm_account", 3, "must be a name"),
        ("constraint", "a b", "must be an expression"),
        ("exclusive", "maybe", "must be true or false"),
        ("slurm_qos", "high", "no such resource; the nearest is qos"),
        ("slurm_partitions", "main", "is not understood by this executor; use slurm_partition"),
        ("slurm_acount", "lab", "no such resource; the nearest is slurm_account"),
        ("cpus_per_gpu", 4, "is not understood by this executor; use cpus_per_task"),
        ("slurm_extra", "", "must be flags of sbatch"),
        ("slurm_extra", "--nice='3", "can't be split into words"),
        ("slurm_extra", "nice=3", "'nice=3' belongs to no flag"),
        ("slurm_extra", "--nice=3 4", "'4' belongs to no flag"),
        ("slurm_extra", "--nice=3 --nice=4", "--nice is there twice"),
        ("slurm_extra", "---nice", "is no flag of sbatch"),
        ("slurm_extra", '--comment="it\'s"', "quotes, backslashes"),
    ],
)
def test_malformed_values_are_refused_with_key_and_value(key, value, says):
    lines = problems(**{key: value})
    assert any(line.startswith(f"{key}={value!r}: ") and says in line for line in lines), lines


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        ({"gpu": 3, "nodes": 2}, "gpu=3: counts the whole job and does not divide by nodes=2"),
        ({"gpu": 2, "gres": "gpu:1"}, "gres='gpu:1': GPUs per node 1, but gpu=2: 2; keep one"),
        ({"gpu": 4, "nodes": 2, "gpus_per_node": 4}, "gpus_per_node=4: GPUs per node 4, but gpu=4: 2; keep one"),
        ({"gpu_model": "a100", "gres": "gpu:v100:1"}, "gres='gpu:v100:1': type of GPU v100, but gpu_model='a100'"),
        ({"gpu_model": "a100", "gpu": 0}, "gpu_model='a100': names a type of GPU, but there are 0 GPUs"),
        ({"tasks": 8, "nodes": 2, "tasks_per_node": 8}, "tasks=8: contradicts nodes=2 x tasks_per_node=8"),
        ({"tasks": 3, "nodes": 2}, "tasks=3: does not divide by nodes=2"),
        ({"tasks": 3, "tasks_per_node": 2}, "tasks=3: does not divide by tasks_per_node=2"),
    ],
)
def test_contradictions_are_refused(resources, says):
    lines = problems(**resources)
    assert len(lines) == 1 and lines[0].startswith(says)


@pytest.mark.parametrize(
    "flags",
    [
        "--job-name=x", "-J x", "-Jx", "--output=x", "-o x", "--array=0-3", "--signal=USR1", "--requeue",
        "--no-requeue", "--partition x", "--part=x", "--time=3", "-t3", "--mem=3", "--wait", "--export=NONE",
        "--gres=a", "--mem=0.5G", "--mem-per-cpu=0", "--parsable", "--chdir=/", "-n 3",
    ],
)  # fmt: skip
def test_flags_that_are_not_free_are_refused(flags):
    (line,) = problems(slurm_extra=flags)
    assert "is set by the resource" in line or "is set by the executor" in line


def test_flags_that_only_resemble_them_are_free():
    extra = "--exclude=n1 --mem-bind=local --dependency=singleton --licenses=a:2 --wckey=w --no-kill"
    assert len(request_of("a", {"slurm_extra": extra}, 1).extra) == 6


def test_all_problems_of_a_rule_come_at_once():
    lines = problems(nodes=0, gpu="x", slurm_partition="", exclusive="maybe", slurm_extra="--time=3")
    assert {line.split("=")[0] for line in lines} == {"nodes", "gpu", "slurm_partition", "exclusive", "slurm_extra"}


def test_equal_requests_share_an_array():
    one = request_of("a", {"gres": "gpu:2", "slurm_extra": "--nice=1 --hold"}, 2)
    other = request_of("b", {"gpu": 2, "nodes": 1, "cpus_per_task": 2, "slurm_extra": "--hold --nice 1"}, 9)
    assert one == other and hash(one) == hash(other)


numbers = st.one_of(st.integers(1, 4), st.sampled_from([0, -1, 1.5, True, "2", None, 8]))
names = st.one_of(st.sampled_from(["a", "a,b", "a1-b", "a&b|[c*2]", "é#%"]), st.text("ab:,= '\"\\\n#", max_size=4))
LIKELY = {
    **dict.fromkeys(("nodes", "tasks_per_node", "runtime", "cpus_per_task", "mem_mb", "exclusive"), numbers),
    **dict.fromkeys(("slurm_partition", "slurm_account", "qos", "constraint", "reservation"), names),
    "gres": st.sampled_from(["gpu", "gpu:2", "gpu:a:2", "b:1", "b,gpu:1", "gpu:a:b:1", "b:c:1,d"]),
    "slurm_extra": st.lists(st.sampled_from(["--nice", "1", "-x", "-w n1", "--mail-user='a b'", "--hold"])).map(
        " ".join
    ),
}
CLASHING = {
    **dict.fromkeys(("tasks", "gpu", "gpus_per_node", "mem_mb_per_cpu"), numbers),
    "gpu_model": names,
    "slurm_foo": names,
}
anything = st.one_of(
    st.fixed_dictionaries({}, optional={key: values}) for key, values in (LIKELY | CLASHING).items()
) | st.fixed_dictionaries({}, optional=LIKELY | CLASHING) | st.fixed_dictionaries({}, optional=LIKELY)  # fmt: skip


@given(anything, st.integers(1, 9))
def test_what_is_accepted_submitit_accepts_and_sbatch_reads_back(resources, threads):
    try:
        request = request_of("a", resources, threads)
    except ResourcesError as error:
        assert error.problems
        return
    event("accepted")
    flags = sbatch_flags(request)
    assert int(flags["nodes"]) == request.nodes and int(flags["cpus-per-task"]) == request.cpus_per_task
    back = {
        "slurm_partition": flags.get("partition"), "slurm_account": flags.get("account"), "qos": flags.get("qos"),
        "constraint": flags.get("constraint"), "reservation": flags.get("reservation"), "gres": flags.get("gres"),
        "runtime": int(flags["time"]) if "time" in flags else None,
        "mem_mb": int(flags["mem"].rstrip("M")) if "mem" in flags else None,
        "mem_mb_per_cpu": int(flags["mem-per-cpu"][:-1]) if "mem-per-cpu" in flags else None,
        "cpus_per_task": int(flags["cpus-per-task"]), "nodes": int(flags["nodes"]),
        "tasks_per_node": int(flags.get("ntasks-per-node", 1)),
        "gpus_per_node": int(flags["gpus-per-node"]) if "gpus-per-node" in flags else None,
        "exclusive": flags.get("exclusive"),
        "slurm_extra": shlex.join(
            f"--{name}" if value is True else f"--{name}={value}" for name, value in request.extra
        ) or None,
    }  # fmt: skip
    assert request_of("a", back, 1) == request
