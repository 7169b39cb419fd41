"""GPUs of a machine, and leases of them by real processes; no GPU is needed, as their names stand for them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from promptecho.cluster.gpus import CudaDevice, detect, parse_list, visible
from promptecho.cluster.leases import Leases
from promptecho.errors import ConfigError, DataError

LIST = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa-1)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbb-2)
  MIG 3g.40gb     Device  0: (UUID: MIG-cccc-3)
  MIG 3g.40gb     Device  1: (UUID: MIG-dddd-4)
"""


def test_gpus_are_read_from_nvidia_smi_and_mig_devices_stand_for_the_gpu_that_is_cut():
    found = parse_list(LIST)
    assert [(gpu.index, gpu.uuid) for gpu in found] == [(0, "GPU-aaaa-1"), (1, "MIG-cccc-3"), (1, "MIG-dddd-4")]
    assert found[0].name == "NVIDIA H100 80GB HBM3" and found[1].name == "MIG 3g.40gb"


def test_without_nvidia_smi_the_driver_s_folder_tells(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for bus, uuid in (("0000:02:00.0", "GPU-2"), ("0000:01:00.0", "GPU-1")):
        (tmp_path / bus).mkdir()
        (tmp_path / bus / "information").write_text(f"Model: \t\t NVIDIA X\nIRQ:   \t\t 5\nGPU UUID: \t {uuid}\n")
    assert detect(tmp_path) == [CudaDevice(0, "GPU-1", "NVIDIA X"), CudaDevice(1, "GPU-2", "NVIDIA X")]
    assert detect(tmp_path / "nothing") == []
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'has failed because it could not communicate'; exit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert detect(tmp_path) == []  # installed without a driver


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, "123"), ("", ""), ("2,0", "31"), ("GPU-b", "2"), ("1,GPU-b-2", "2"), ("0,-1,1", "1")],
)
def test_cuda_visible_devices_is_the_set_to_choose_from(given, expected):
    gpus = [CudaDevice(0, "GPU-a-1"), CudaDevice(1, "GPU-b-2"), CudaDevice(2, "GPU-c-3")]
    environ = {} if given is None else {"CUDA_VISIBLE_DEVICES": given}
    assert "".join(gpu.uuid[-1] for gpu in visible(environ, gpus)) == expected


@pytest.mark.parametrize(("given", "problem"), [("3", "names no GPU"), ("GPU-", "names more than one GPU")])
def test_what_cuda_visible_devices_names_must_be_there(given, problem):
    gpus = [CudaDevice(0, "GPU-a-1"), CudaDevice(1, "GPU-b-2")]
    with pytest.raises(ConfigError, match=rf"={given}: {given} {problem}; there are: 0 \(GPU-a-1\)"):
        visible({"CUDA_VISIBLE_DEVICES": given}, gpus)


PROMPTECHO = [sys.executable, "-m", "promptecho"]


class Machine:
    """Three GPUs, and commands that lease them."""

    def __init__(self, folder: Path):
        self.folder, self.started = folder, []

    def options(self, devices: str) -> list[str]:
        return ["--devices", devices, "--folder", str(self.folder / "leases")]

    def start(self, count: int, *command: str, devices: str = "a,b,c", **environ: str) -> subprocess.Popen:
        words = [*PROMPTECHO, "gpus", "run", "--count", str(count), *self.options(devices), "--", *command]
        self.started.append(
            subprocess.Popen(
                words, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **environ}
            )
        )
        return self.started[-1]

    def hold(self, count: int, devices: str = "a,b,c") -> subprocess.Popen:
        """A command that says what it got once it has it, and holds it until it is killed."""
        return self.start(count, "bash", "-c", "echo $CUDA_VISIBLE_DEVICES; exec sleep 1000", devices=devices)

    def show(self) -> dict:
        words = [*PROMPTECHO, "gpus", "--json", *self.options("a,b,c")]
        return json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)

    def until_waiting(self, n: int) -> None:
        while len(self.show()["waiting"]) < n:
            assert all(process.poll() is None for process in self.started)
            time.sleep(0.1)


@pytest.fixture
def machine(tmp_path):
    one = Machine(tmp_path)
    yield one
    for process in one.started:
        process.kill()
        process.communicate()


def test_gpus_are_given_in_the_order_of_asking_and_freed_by_sigkill(machine):
    first = machine.hold(1)
    assert first.stdout.readline() == "a\n"
    both = machine.hold(3)
    machine.until_waiting(1)
    later = machine.hold(1)  # b and c are free, but `both` would never get three if others took them
    machine.until_waiting(2)
    elsewhere = machine.hold(1, devices="x")  # who asks for another GPU does not wait
    assert elsewhere.stdout.readline() == "x\n"

    shown = machine.show()
    assert [gpu["held_by"] and gpu["held_by"]["pid"] for gpu in shown["gpus"]] == [first.pid, None, None]
    assert [request["pid"] for request in shown["waiting"]] == [both.pid, later.pid]

    first.kill()
    assert both.stdout.readline() == "a,b,c\n"
    assert len(machine.show()["waiting"]) == 1
    both.kill()
    assert later.stdout.readline() == "a\n"
    later.kill()
    line = later.communicate()[1].splitlines()[0]
    assert line.startswith("promptecho: waiting for 1 of 3 GPUs: a held by process") and f"process {first.pid} " in line
    assert f"asked for before by process {both.pid}" in line and "sleep 1000" in line
    first.wait()
    assert [gpu["held_by"] for gpu in machine.show()["gpus"]] == [None] * 3


def test_who_gives_up_waiting_leaves_the_queue(machine):
    machine.hold(3).stdout.readline()
    waiting = machine.hold(1)
    machine.until_waiting(1)
    waiting.kill()
    waiting.wait()
    assert machine.show()["waiting"] == []


def test_the_command_is_the_process_and_its_exit_code_comes_through(machine):
    process = machine.start(2, "bash", "-c", "echo $$ $CUDA_VISIBLE_DEVICES; exit 75")
    assert process.communicate()[0] == f"{process.pid} a,b\n" and process.returncode == 75


@pytest.mark.parametrize(
    ("count", "environ", "seen"),
    [(0, {}, ""), (2, {"SLURM_JOB_ID": "1", "CUDA_VISIBLE_DEVICES": "5"}, "5"), (99, {"SLURM_JOB_ID": "1"}, "unset")],
)
def test_no_gpus_hides_them_and_slurm_s_choice_stays(machine, monkeypatch, count, environ, seen):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    process = machine.start(count, "bash", "-c", "echo ${CUDA_VISIBLE_DEVICES-unset}", **environ)
    assert process.communicate() == (f"{seen}\n", "")


def test_on_a_machine_without_gpus_the_command_runs_as_it_is(tmp_path):
    words = [*PROMPTECHO, "gpus", "run", "--count", "2", "--devices", "", "--", "/bin/sh", "-c", "echo $1", "-", "--x"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("--x\n", "")


@pytest.mark.parametrize(
    ("count", "command", "said"),
    [
        (4, ["true"], "promptecho: 4 GPUs are wanted, but there are 3 (a, b, c): ask for fewer\n"),
        (1, ["absent-command"], "promptecho: absent-command: can't be started (No such file or directory)\n"),
    ],
)
def test_what_can_t_be_is_one_line(machine, count, command, said):
    process = machine.start(count, *command)
    assert process.communicate()[1] == said and process.returncode == 1


def test_a_command_that_holds_gpus_can_t_wait_for_itself(machine):
    inner = [*PROMPTECHO, "gpus", "run", "--count", "2", *machine.options("a,b,c"), "--", "true"]
    process = machine.start(2, *inner)
    said = process.communicate()[1]
    assert process.returncode == 1 and said.startswith("promptecho: 2 GPUs are wanted inside of a command that holds")


def test_the_folder_is_this_user_s_alone(tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(DataError, match="must be a folder of this user alone"):
        Leases(tmp_path / "open", ["a"]).take(1, "x", print)
    Leases(tmp_path / "new", ["a"]).take(1, "x", print)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


SNAKEFILE = """\
rule all:
    input: expand("{name}.{k}", name=config["name"], k=range(4))
rule job:
    output: "{name}.{k}"
    params: gpus=lambda wildcards: 1 + int(wildcards.k) % 3
    shell:
        "GPUS --count {params.gpus} -- bash -c 'echo begin $CUDA_VISIBLE_DEVICES >> log; sleep 0.2; "
        "echo end $CUDA_VISIBLE_DEVICES >> log; touch {output}'"
"""


def test_two_snakemakes_never_use_one_gpu_at_a_time(machine, tmp_path):
    run = " ".join([*PROMPTECHO, "gpus", "run", *machine.options("a,b,c")])
    (tmp_path / "Snakefile").write_text(SNAKEFILE.replace("GPUS", run))
    snakemakes = []
    for name in ("p", "q"):
        words = [sys.executable, "-m", "snakemake", "--nolock", "--quiet", "-c4", "--config", f"name={name}"]
        snakemakes.append(subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True))
    for process in snakemakes:
        said = process.communicate()[1]
        assert process.returncode == 0, said
    used: set[str] = set()
    begun = 0
    for line in (tmp_path / "log").read_text().splitlines():
        word, devices = line.split()
        one = set(devices.split(","))
        if word == "begin":
            begun += 1
            assert not used & one, line
            used |= one
        else:
            used -= one
    assert begun == 8 and used == set()


def test_signals_are_as_a_shell_has_them(machine):
    """Python ignores SIGPIPE; a command that inherited that would not end with its reader."""
    process = machine.start(1, "bash", "-c", "yes | head -n 1; echo ${PIPESTATUS[0]}")
    assert process.communicate()[0].split() == ["y", str(128 + signal.SIGPIPE)]
