"""The payload with real processes and signals, as submitit runs it; without Slurm, whose commands are missing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakemake_executor_plugin_submitit.payload import Payload, seconds_of

RUN = """
import os, pickle, sys
from submitit.core.utils import DelayedSubmission
payload = pickle.load(open(sys.argv[1], "rb"))
payload()
"""


class Job:
    """A payload in a process of its own, as the batch script starts it."""

    def __init__(self, folder: Path, command: str, outputs: list[str], **options):
        import cloudpickle

        import snakemake_executor_plugin_submitit.submission  # noqa: F401  pickles the payload by value

        self.folder = folder
        options = {"signal_delay_s": 22, "requeue_limit": 1, **options}
        payload = Payload(command, "smk.test", outputs, workdir=str(folder), folder=str(folder), **options)
        (folder / "payload.pkl").write_bytes(cloudpickle.dumps(payload))
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
        # No checkout on the path: the pickle stands for itself.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", RUN, str(folder / "payload.pkl")],
            cwd="/", env={**environment, "SLURM_JOB_ID": "12", "SLURMD_NODENAME": "n7"}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def end(self) -> tuple[int, str]:
        text, _ = self.process.communicate(timeout=300)
        return self.process.returncode, text

    @property
    def outcome(self) -> dict | None:
        path = self.folder / "12.outcome.json"
        return json.loads(path.read_text()) if path.exists() else None


def test_success_is_an_exit_code_of_0_with_outputs_made_by_this_job(tmp_path):
    job = Job(tmp_path, "echo $SNAKEMAKE_STOP_FILE > out.txt", ["out.txt"])
    assert job.end()[0] == 0
    assert job.outcome["memory"].keys() == {"kills", "of_job", "limit_mb", "peak_mb"}
    assert job.outcome | {"seconds": 0, "memory": 0} == {
        "returncode": 0, "missing": [], "reason": None, "node": "n7", "seconds": 0, "restarts": 0, "memory": 0,
    }  # fmt: skip
    assert (tmp_path / "out.txt").read_text() == f"{tmp_path}/12.stop.0\n"


def test_outputs_of_an_earlier_run_are_no_success(tmp_path):
    (tmp_path / "old.txt").touch()
    time.sleep(2.5)  # the clocks of two file servers may differ by two seconds
    job = Job(tmp_path, "true", ["old.txt", "never.txt"])
    code, text = job.end()
    assert code == 1 and job.outcome["missing"] == ["old.txt", "never.txt"]
    assert "ended with exit code 0 but did not make never.txt" in text


def test_a_copy_with_an_old_time_is_an_output(tmp_path):
    (tmp_path / "source.txt").touch()
    os.utime(tmp_path / "source.txt", (0, 0))
    assert Job(tmp_path, "cp -p source.txt out.txt", ["out.txt"]).end()[0] == 0


@pytest.mark.parametrize("command, code", [("exit 3", 3), ("exit 200", 1), ("kill -9 $$", 1)])
def test_a_failed_command_fails_the_slurm_job(tmp_path, command, code):
    job = Job(tmp_path, command, [])
    assert job.end()[0] == code
    assert job.outcome["returncode"] == {"exit 3": 3, "exit 200": 200, "kill -9 $$": -9}[command]


def test_sigterm_waits_for_what_is_being_saved_and_leaves_no_outcome(tmp_path):
    saver = "trap 'sleep 1; touch saved; exit 1' TERM; touch ready; while true; do sleep 0.1; done"
    job = Job(tmp_path, f"trap 'exit 7' TERM; ({saver}) & wait", [])
    while not (tmp_path / "ready").exists():
        time.sleep(0.1)
    for pid in _group_of(job):  # Slurm sends it to every process
        os.kill(pid, signal.SIGTERM)
    assert job.end()[0] == 128 + signal.SIGTERM
    assert job.outcome is None and (tmp_path / "saved").exists() and (tmp_path / "12.stop.0").exists()


def payload_of(folder: Path, command: str, **options) -> Payload:
    options = {"signal_delay_s": 22, "requeue_limit": 0, **options}
    return Payload(command, "smk.test", [], workdir=str(folder), folder=str(folder), **options)


def test_a_life_that_slurm_ended_leaves_nothing_to_the_next(tmp_path, monkeypatch):
    """SIGTERM and the checkpoint signal come together where the time limit is hit at once; the next life may fail."""
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("PATH", os.pathsep.join(["/usr/bin", "/bin"]))
    first = payload_of(tmp_path, "exit 3")
    first._on_sigterm()
    second = first.checkpoint().function
    with pytest.raises(SystemExit):
        second()
    assert json.loads((tmp_path / "12.outcome.json").read_text())["returncode"] == 3


KILLED_ONCE = "INVALID; [ -e asked ] || { touch asked; kill -TERM $$; }"


@pytest.mark.parametrize("left", ["INVALID", "0:00", "1:30", KILLED_ONCE], ids=["over", "0", "90 s", "squeue killed"])
def test_at_the_time_limit_or_after_it_requeues_are_counted(tmp_path, monkeypatch, left):
    """Where the signal comes late, Slurm ends every process of the job at once, so also the one that asks it."""
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.chdir(tmp_path)
    answer, _, before = left.partition("; ")
    (tmp_path / "squeue").write_text(f"#!/bin/sh\n{before}\necho {answer}\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(Exception, match="reached its time limit 1 times"):
        payload_of(tmp_path, "true").checkpoint()
    payload_of(tmp_path, "true", requeue_limit=1).checkpoint()
    assert (tmp_path / "12.requeues").read_text() == "1"


def test_an_outcome_of_a_life_that_somebody_requeued_is_forgotten(tmp_path):
    (tmp_path / "12.outcome.json").write_text('{"returncode": 1}')
    job = Job(tmp_path, "touch ready; until [ -e go ]; do sleep 0.1; done", [])
    while not (tmp_path / "ready").exists():
        time.sleep(0.1)
    assert job.outcome is None
    (tmp_path / "go").touch()
    assert job.end()[0] == 0 and job.outcome["returncode"] == 0


def _group_of(job: Job) -> list[int]:
    done = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
    pairs = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    found = [job.process.pid]
    for pid, parent in sorted(pairs):
        if parent in found:
            found.append(pid)
    return found


@given(st.integers(0, 9), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_lengths_of_time_in_slurm_s_words(days, hours, minutes, seconds):
    text = f"{days}-{hours:02}:{minutes:02}:{seconds:02}"
    assert seconds_of(text) == ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    assert seconds_of(f"{minutes}:{seconds:02}") == minutes * 60 + seconds


@pytest.mark.parametrize("text", ["UNLIMITED", "INVALID", ""])
def test_no_length_of_time(text):
    with pytest.raises(ValueError):
        seconds_of(text)
