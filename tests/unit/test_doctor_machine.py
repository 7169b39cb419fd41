"""The preflight finds what the machine or the cluster lacks: packages, room, partitions, nodes that see the results."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from doctor_world import Make, only, write_experiment, written
from typer.testing import CliRunner

from promptecho.cli import app
from promptecho.cluster.gpus import detect
from promptecho.doctor import probe_node
from promptecho.doctor.backends import backends
from promptecho.doctor.cluster import JobNeeds, cluster, jobs_of, misfits, parse_partitions
from promptecho.doctor.local_gpus import local_gpus
from promptecho.doctor.packages import environments, packages
from promptecho.doctor.places import clock, file_system, results_writable, room, shared_folders
from promptecho.doctor.probe import MINUTES, Probe, of_node, probe, probes_of
from promptecho.doctor.profile_mistakes import profile_mistakes
from promptecho.doctor.short import short_lines
from promptecho.doctor.torch_build import torch_build
from promptecho.doctor.totals import Totals
from promptecho.envs.spec import ENVS, read_spec


@pytest.fixture
def experiment(tmp_path, monkeypatch) -> Make:
    """Writes the experiment to a folder in which the preflight then starts."""
    monkeypatch.chdir(tmp_path)
    return write_experiment


def test_guards_need_the_environment_of_captions_where_nothing_is_captioned(experiment):
    preflight = experiment(guards=[{"name": "echo"}])
    assert preflight.names("guard") == ["echo"]
    ((file, when),) = environments(replace(preflight, stages=frozenset({"guard"}), benchmarks={})).values()
    assert file.name == "caption.yaml" and "rule guard" in when


@pytest.mark.skipif(importlib.util.find_spec("modelscope") is not None, reason="ModelScope is installed here")
def test_a_backend_whose_packages_are_not_installed_is_found_before_anything_is_scored(experiment):
    official = {"benchmark": "dpg", "prompts": "data/benchmarks/dpg/dpg_bench.csv"}
    mplug = {"image_set": "dpg", "scorer": "dpg", "backend": "mplug"}
    preflight = experiment(
        image_sets={"dpg": official}, benchmarks={"dpg": mplug}, evaluate=[{"benchmark": "dpg"}]
    )  # fmt: skip
    found = only(packages(preflight))
    assert "benchmarks.dpg, backend mplug: not installed: " in found.what and "modelscope==" in found.what
    assert "rule score" in found.when and "conda" in found.fix
    found = only(backends(preflight), "warning")  # nor may they be enough
    assert found.what.startswith("benchmarks.dpg, backend mplug: nobody has brought it to run for this project")
    assert found.when == "scores (rule score) of dpg" and found.fix.startswith("write backend: judge")
    short = short_lines(preflight.config, preflight.source, ["score"], ["dpg"], conda=True)
    assert "benchmarks.dpg, backend mplug: nobody has brought it to run" in "\n".join(short)
    told = CliRunner().invoke(app, ["config", "check", "config/experiments/tiny.yaml"])
    assert told.exit_code == 0
    assert "config/experiments/tiny.yaml: warning: benchmarks.dpg.backend: mplug: nobody" in told.stderr


def test_conda_environments_need_conda(experiment, tmp_path, monkeypatch):
    profile = tmp_path / "profile"
    profile.mkdir()
    (profile / "config.yaml").write_text("software-deployment-method: conda\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = only(packages(experiment(profile)))
    assert "no conda on PATH" in found.what and "start of Snakemake" in found.when


def test_environments_of_the_site_are_looked_at_where_it_names_a_folder_of_them(experiment):
    preflight = replace(experiment(), envs=Path("built"))
    found = [one for one in packages(preflight) if one.severity == "problem"]
    assert found and all("is not in built" in one.what and "start of Snakemake" in one.when for one in found)
    assert {one.fix for one in found} >= {f"promptecho envs build {name} --into built" for name in ("train", "tables")}


@pytest.mark.parametrize("method", ["conda", "apptainer"])
def test_environments_of_the_site_beside_other_ones_are_a_problem(experiment, tmp_path, method):
    written(tmp_path / "p", f"software-deployment-method: {method}\n")
    found = only(packages(replace(experiment(tmp_path / "p"), envs=Path("built"))))
    assert f"config/config.yaml: envs, and {tmp_path}/p/config.yaml: software-deployment-method: {method}" in found.what


def test_room_on_the_disk_is_compared_with_what_will_be_written(experiment):
    free = shutil.disk_usage(".").free
    preflight = experiment()
    assert only(room(preflight, Totals("", disk={"images": free / 2})), "fine")
    found = only(room(preflight, Totals("", disk={"images": free / 2, "train echo": 2.0 * free})))
    assert "the largest: train echo" in found.what and "keep: none" in found.fix


def test_folders_that_everybody_may_write_are_told(experiment):
    preflight = experiment()
    preflight.results.mkdir(parents=True)
    assert only(results_writable(preflight), "fine")
    preflight.results.chmod(0o777)
    assert "results/tiny: everybody may write" in only(results_writable(preflight), "warning").what
    preflight.results.chmod(0o1777)
    assert only(results_writable(preflight), "fine")


def test_a_folder_that_cannot_be_written_is_told_with_what_would_open_it(experiment, monkeypatch):
    """Permissions do not bind root, so that they are pretended here."""
    preflight = experiment()
    preflight.results.mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert only(results_writable(preflight)).fix.startswith("chmod u+wx results/tiny")
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    found = only(results_writable(preflight))
    assert found.what.endswith("you may not write there, and it is not yours") and "chmod" not in found.fix
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))
    found = only(results_writable(preflight))
    assert found.what == "results/tiny: its file system is read-only, for everybody" and "chmod" not in found.fix


@pytest.mark.skipif(file_system(Path("/dev/shm")) != "tmpfs", reason="/dev/shm is no file system in memory here")
def test_results_in_the_memory_of_one_machine_are_found_before_the_first_submission(experiment, monkeypatch):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        monkeypatch.chdir(folder)
        Path("profile").mkdir()
        Path("profile/config.yaml").write_text("executor: submitit\n")
        preflight = experiment(Path("profile"))
        found = only(shared_folders(preflight))
        assert "on tmpfs" in found.what and "results (results/tiny)" in found.what and "first jobs" in found.when
        assert not list(shared_folders(experiment()))  # on one machine nobody else has to see it


def test_the_kind_of_a_file_system_is_that_of_the_longest_mount_point(tmp_path):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        f"35 22 0:31 / {tmp_path} rw shared:9 - nfs4 server:/export rw\n"
        f"36 22 0:32 / {str(tmp_path / 'a b').replace(' ', chr(92) + '040')} rw - lustre x rw\n"
    )
    assert file_system(tmp_path / "x", mounts) == "nfs4"
    assert file_system(tmp_path / "a b/c", mounts) == "lustre"
    assert file_system(Path(f"{tmp_path}-other"), mounts) == "ext4"


def test_a_clock_that_is_off_is_told(experiment, monkeypatch):
    assert only(clock(experiment()), "fine")
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 60)
    assert "is 60 s behind this machine" in only(clock(experiment()), "warning").what


SINFO = """\
gpu*|up|1-00:00:00|2|64|512000|gpu:a100:4(S:0-1)
gpu*|up|1-00:00:00|1|64|512000|gpu:1g.5gb:7,nvme:1
cpu|down|infinite|8|32|128000|(null)
"""


def test_what_jobs_ask_is_compared_with_what_partitions_have():
    partitions = parse_partitions(SINFO)
    assert [one.gpus for one in partitions["gpu"].nodes] == [4, 7] and partitions["cpu"].nodes[0].gpus == 0
    assert partitions["gpu"].minutes == 1440 and partitions["cpu"].minutes is None

    def told(**changes: Any) -> list[str]:
        job = {"partition": "gpu", "nodes": 2, "gpus": 4, "cpus": 32, "mem_mb": 400_000, "minutes": 600} | changes
        return [what for what, _ in misfits(partitions, JobNeeds(**job))]

    assert told() == [] == told(partition=None) == told(partition="cpu,gpu")
    assert told(partition="long") == ["slurm_partition 'long' does not exist; there are: gpu, cpu"]
    assert told(minutes=2000) == ["runtime 2000 minutes: partition gpu allows 1440"]
    assert "partition gpu has 1 such nodes; its nodes: 2 with 64 CPUs" in told(gpus=7)[0]
    assert [line.partition(":")[0] for line in told(partition="cpu", gpus=0, mem_mb=0)] == [
        "partition cpu is down, not up"
    ]


def test_the_profile_says_where_jobs_go_and_what_it_wants_otherwise(experiment, monkeypatch, tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p/config.yaml").write_text(
        "executor: submitit\ndefault-resources:\n  slurm_partition: \"'gpu'\"\n  mem_mb: 4000\n"
        "set-resources:\n  train: {slurm_partition: long, nodes: 2, gpus_per_node: 8, tasks_per_node: 8, runtime: 90}\n"
        "  score: {gres: gpu:a100:1}\nset-threads: {train: 4}\n"
    )
    jobs = dict(jobs_of(experiment(tmp_path / "p")))
    assert jobs["train"] == JobNeeds("long", 2, 8, 32, 6000, 90)
    assert jobs["score"].gpus == 1 and jobs["score"].partition == "gpu"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no sinfo on this machine" in only(cluster(experiment(tmp_path / "p")), "unchecked").what


def test_values_mean_to_the_preflight_what_they_mean_to_snakemake(tmp_path):
    profile = written(
        tmp_path / "p",
        "executor: submitit\ndefault-resources: {slurm_account: 2024proj, constraint: a100|h100, mem: 4GB, "
        "qos: null, slurm_partition: \"'gpu'\"}\nset-resources:\n"
        "  train: {runtime: \"'3d'\", mem: 0.5 TB, nodes: 1 + 1}\n"
        "  judge: {runtime: 12h, gres: 'gpu:a100:1'}\n  score: {runtime: attempt * 60, mem_mb: 2 * input.size_mb}\n"
        "set-threads: {train: 2 * 4}\n",
    )
    assert profile.resources("none") == {
        "slurm_account": "2024proj", "constraint": "a100|h100", "mem_mb": 4000, "slurm_partition": "gpu",
    }  # fmt: skip
    assert profile.rules["train"] == {"runtime": 4320, "mem_mb": 500_000, "nodes": 2}
    assert profile.rules["judge"] == {"runtime": 720, "gres": "gpu:a100:1"}
    assert profile.rules["score"] == {"runtime": 60} and profile.threads == {"train": 8}
    assert list(profile.computed) == ["set-resources.score.mem_mb: 2 * input.size_mb"] and not profile.mistakes
    lists = "default-resources: [slurm_partition=gpu]\nset-resources: ['train:runtime=90']\nset-threads: [train=4]\n"
    profile = written(tmp_path / "p", lists)
    assert (profile.default, profile.rules) == ({"slurm_partition": "gpu"}, {"train": {"runtime": 90}})
    assert profile.threads == {"train": 4} and not profile.mistakes


def test_what_cannot_be_read_in_a_profile_is_named_with_the_fix(experiment, tmp_path):
    def told(text: str) -> tuple[str, str]:
        written(tmp_path / "p", text)
        found = only(profile_mistakes(experiment(tmp_path / "p")))
        assert str(tmp_path / "p/config.yaml") in found.what
        return found.what.partition("config.yaml: ")[2], found.fix

    assert told("default-resources: 5\n")[0].startswith("default-resources: '5' says nothing of a resource")
    what, fix = told("set-resources: {train: 3}\n")
    assert what.startswith("set-resources: {'train': 3}") and "train: {runtime: 60}" in fix
    what, fix = told("set-resources: {train: {mem_mb: 4GB}}\n")
    assert what.startswith("set-resources.train.mem_mb: 4GB: ") and "mem: 4GB" in fix
    assert "runtime: 12h" in told("set-resources: {train: {runtime: soon}}\n")[1]
    what, fix = told("default-resources: {slurm_partition: all}\n")  # a function of Python's
    assert what.startswith("default-resources.slurm_partition: all: ") and "\"'all'\"" in fix
    assert "another unit" in told("set-resources: {train: {mem: 4GB, mem_mb: 4000}}\n")[0]
    assert told("set-threads: {train: many}\n")[0].startswith("set-threads.train: many: ")
    assert told("executor: [submitit\n")[0].startswith("is no YAML")
    assert "names no method" in told("software-deployment-method: 5\n")[0]


def test_torch_that_is_missing_or_sees_no_gpu_is_a_finding_of_its_own(experiment, tmp_path, monkeypatch):
    written(tmp_path / "p", "executor: submitit\n")
    assert only(torch_build(experiment()), "fine")
    import torch

    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    real = {"t2i": {"path": "some/t2i"}}
    assert "processors alone" in only(torch_build(experiment(tmp_path / "p", models=real))).what
    assert only(torch_build(experiment(models=real)), "warning")
    # Where jobs have environments of their own, or an image, this one is not theirs.
    apart = replace(experiment(tmp_path / "p", models=real), envs=Path("built"))
    assert only(torch_build(apart), "unchecked").what == "torch: jobs use that of the environments in built"
    written(tmp_path / "image", "executor: submitit\nuse-singularity: true\n")
    assert only(torch_build(experiment(tmp_path / "image", models=real)), "unchecked")
    found_before = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else found_before(name))
    found = only(torch_build(experiment()))
    assert found.what.startswith("torch is not installed in ") and "make setup" in found.fix


@pytest.mark.skipif(bool(detect()), reason="this machine has GPUs")
def test_real_models_on_a_machine_without_gpus_are_told(experiment, tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p/config.yaml").write_text("cores: all\n")
    assert only(local_gpus(experiment(tmp_path / "p")), "fine").what == "no stage takes a GPU"
    real = {"t2i": {"path": "some/t2i"}}
    found = only(local_gpus(experiment(tmp_path / "p", models=real)), "warning")
    assert "no NVIDIA GPU" in found.what and "rule train" in found.when
    assert "no profile is named" in only(local_gpus(experiment(models=real)), "unchecked").what


def test_a_node_s_report_is_read(experiment, tmp_path):
    sent = Probe(JobNeeds("gpu", 2, 2, 2, 8000, 10), "train", "training", tmp_path, "n")
    gpus = [{"name": "A", "free": 78e9, "total": 80e9}, {"name": "A", "free": 20e9, "total": 80e9}]
    sound = {
        "host": "n1", "nonce": "n", "python_version": "3.11", "time": 100.0, "written": 100.5,
        "file_system": "nfs4", "disk": "/tmp", "disk_kind": "xfs", "disk_free": 5e11, "exchange": {"ranks": 4},
    }  # fmt: skip
    look = {"python": "/p", "on_gpus": True, "packages": {"stage train": [[], []]}, "gpus": gpus[:1] * 2, "cuda": ""}

    def told(python: dict[str, Any] | None = None, **changes: Any) -> list[str]:
        facts = sound | changes | {"looks": [look | (python or {})]}
        found = of_node(experiment(), sent, facts, "training")
        return [one.what for one in found if one.severity != "fine"]

    assert told() == []
    assert told({"gpus": gpus}) == ["partition gpu, node n1: GPU 1: 20.0 of 80.0 GB are free"]
    assert "2 GPU(s) asked for: torch sees no GPU" in told({"gpus": [], "cuda": "torch sees no GPU"})[0]
    assert "reads other content" in told(nonce="m")[0]
    assert "its clock is 30 s behind the file system's" in told(written=130.0)[0]
    assert "stage train: not installed in /p: x==1" in told({"packages": {"stage train": [["x==1"], []]}})[0]
    assert told({"gpus": [], "on_gpus": False}) == []
    unasked = look | {"error": probe_node.NO_TIME, "gpus": []}
    late, seen = of_node(experiment(), sent, sound | {"looks": [unasked]}, "training")
    assert late.severity == "unchecked" and late.what.endswith("/p: not asked, no time left")
    assert seen.what.endswith("; GPUs not looked at")
    assert "/p does not start as jobs start it: no such file" in told({"error": "no such file"})[0]
    assert "could not exchange: hung" in told(exchange={"error": "hung"})[0]
    wrong = {"ranks": 4, "backend": "nccl", "right": False, "gb_s": 1.0, "bus_gb_s": 1.5}
    assert "4 ranks add up to a wrong sum" in told(exchange=wrong)[0]


AT_ONCE = """#!/bin/sh
case $0 in
*/sbatch) for script; do :; done; echo "$script" >> submitted; sh "$script" > probe.log 2>&1; echo 7;;
*/srun) shift; exec "$@";;
esac
"""
GPU = """
__version__ = "2.0+here"
class version: cuda = "{cuda}"
class cuda:
    is_available, device_count = lambda: {number} > 0, lambda: {number}
    mem_get_info, get_device_name = lambda index: (70e9, 80e9), lambda index: "Card"
"""


def programs(folder: Path, text: str, *names: str) -> str:
    """A search path that begins with scripts in place of Slurm's commands; the real ones are tried in tests/slurm."""
    folder.mkdir()
    for name in names:
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def build_environment(name: str, torch: str) -> Path:
    """A stand-in for an environment that `promptecho envs build` has made: this Python with a torch of its own, or one
    that does not start (`torch`: "")."""
    folder = Path(f"built/builds/{name}").absolute()
    (folder / "bin").mkdir(parents=True)
    (folder / "torch.py").write_text(torch)
    start = f'PYTHONPATH="{folder}:$PYTHONPATH" exec {sys.executable} "$@"' if torch else "echo no libc >&2; exit 3"
    (folder / "bin/python").write_text(f"#!/bin/sh\n{start}\n")
    (folder / "bin/python").chmod(0o755)
    (folder / "environment.json").write_text(json.dumps({"digest": read_spec(ENVS / f"{name}.yaml").digest}))
    Path("built", name).symlink_to(f"builds/{name}")
    return folder / "bin/python"


def test_a_probe_asks_the_python_of_each_stage_in_one_job_for_a_partition(experiment, tmp_path, monkeypatch):
    """GPUs are those that stand-ins for torch tell of."""
    resources = "{slurm_partition: gpu, nodes: 1, gpus_per_node: 1}"
    rules = f"set-resources: {{caption_shard: {resources}, train: {resources}, generate_shard: {resources}}}\n"
    written(tmp_path / "p", f"executor: submitit\ndefault-resources: {{slurm_partition: cpu}}\n{rules}")
    real = {"t2i": {"path": "some/t2i"}, "vlm": {"path": "some/vlm"}}
    preflight = replace(experiment(tmp_path / "p", models=real), envs=Path("built"))
    card = GPU.format(cuda="12.8", number=1)
    caption, train = build_environment("caption", card), build_environment("train", "")
    generate = build_environment("generate", GPU.format(cuda="11.8", number=0))
    monkeypatch.setenv("PATH", programs(tmp_path / "bin", AT_ONCE, "sbatch", "srun", "squeue", "scancel"))
    found = list(probe(preflight))
    told = {severity: [one.what for one in found if one.severity == severity] for severity in ("problem", "fine")}
    assert len(Path("submitted").read_text().splitlines()) == 2  # partitions
    host = f"partition gpu, node {socket.gethostname()}"
    problems = "\n".join(told["problem"])
    assert f"{host}: {train} does not start as jobs start it: no libc" in problems
    assert f"{host}: 1 GPU(s) asked for: torch 2.0+here sees no GPU (built for CUDA 11.8) in {generate}" in problems
    assert f"{host}: {caption} has the packages of stage caption" in told["fine"]
    assert any(one.startswith(f"{host}: sees results") and "Card with 70.0 GB free" in one for one in told["fine"])
    assert problems.count("environment score: is not in built") == 1  # nobody was asked in its place
    for name in ("caption", "train", "generate"):
        Path("built", name).unlink()
    found = list(probe(preflight, lacking_told=True))
    assert not any("is not in built" in one.what for one in found)
    assert sum(one.what.endswith("; GPUs not looked at") for one in found) == 2
    assert not Path("results").exists()


def test_gpus_are_asked_for_where_somebody_looks_at_them(experiment, tmp_path):
    """A rule that the profile gives a GPU although its work takes none may have no torch."""
    rules = "set-resources: {score: {gpus_per_node: 2}, train: {nodes: 2}}\n"
    written(tmp_path / "p", f"executor: submitit\n{rules}")
    (one,) = probes_of(experiment(tmp_path / "p"), tmp_path)
    assert [python.on_gpus for python in one.pythons] == [False] and (one.job.gpus, one.job.nodes) == (0, 1)
    (one,) = probes_of(experiment(tmp_path / "p", models={"t2i": {"path": "some/t2i"}}), tmp_path)
    assert [python.on_gpus for python in one.pythons] == [True] and one.job.gpus > 0


def test_looks_at_pythons_of_a_node_have_one_deadline(tmp_path, monkeypatch):
    Path(tmp_path, "nonce.json").write_text('{"nonce": "n"}')
    asked = {"python": sys.executable, "on_gpus": False, "environments": {}}
    Path(tmp_path, "asked.json").write_text(json.dumps({"pythons": [asked]}))
    monkeypatch.setattr(probe_node, "LOOKS_S", 0)
    assert [one["error"] for one in probe_node.report(tmp_path)["looks"]] == [probe_node.NO_TIME]
    assert probe_node.LOOKS_S + probe_node.EXCHANGE_S < 60 * MINUTES


SLURM = """#!/bin/sh
case $0 in
*/sbatch) echo 7;;
*/squeue) kill -TERM $PPID; echo 'PENDING|Priority';;
*/scancel) echo "$@" > cancelled;;
esac
"""


def test_a_probe_that_is_ended_from_outside_cancels_its_job_and_leaves_no_folder(experiment, tmp_path, monkeypatch):
    (tmp_path / "p").mkdir()
    (tmp_path / "p/config.yaml").write_text("executor: submitit\n")
    monkeypatch.setenv("PATH", programs(tmp_path / "bin", SLURM, "sbatch", "squeue", "scancel"))
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # other tests in this process may have left a handler
    try:
        with pytest.raises(SystemExit):
            list(probe(experiment(tmp_path / "p")))
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    assert Path("cancelled").read_text().split() and not Path("results").exists()
