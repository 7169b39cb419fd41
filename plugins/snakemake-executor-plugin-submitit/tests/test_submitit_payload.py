"""The payload with real processes and signals, as submitit runs it; without Slurm, whose commands are missing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from payload_job import Job

from snakemake_executor_plugin_submitit.payload import seconds_of


def test_success_is_an_exit_code_of_0_with_outputs_made_by_this_job(tmp_path):
    job = Job(tmp_path, "echo $SNAKEMAKE_STOP_FILE > out.txt", ["out.txt"])
    assert job.end()[0] == 0
    assert job.outcome["memory"].keys() == {"kills", "of_job", "limit_mb", "peak_mb"}
    assert job.outcome | {"seconds": 0, "memory": 0} == {
        "returncode": 0, "missing": [], "reason": None, "node": "n7", "seconds": 0, "restarts": 0, "memory": 0,
    }  # fmt: skip
    assert (tmp_path / "out.txt").read_text() == f"{tmp_path}/12.stop.0\n"


def test_outputs_of_an_earlier_run_are_no_success(tmp_path):
    for name in ("folder", "stamped"):
        (tmp_path / name).mkdir()
    for name in ("old.txt", "stamped/.snakemake_timestamp"):
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("old.txt")
    old = ["old.txt", "link", "folder", "stamped"]
    os.utime(tmp_path / "old.txt", (2**32, 2**32))  # from the future: no clock helps
    job = Job(tmp_path, "true", [*old, "never.txt"])
    code, text = job.end()
    assert code == 1 and job.outcome["missing"] == [*old, "never.txt"]
    assert "ended with exit code 0 but did not make never.txt" in text


MADE = {
    "copied with its time": "cp -p source.txt out",
    "moved": "mv source.txt out",
    "link to an old file": "ln -s source.txt out",
    "hard link": "ln source.txt out",
    "link to an old folder": "ln -s folder out",
    "moved folder": "mv folder out",
    "written again": "mkdir new; mv new out; rmdir out; echo same > out",
    "touched in the folder": "mv stamped out; touch out/.snakemake_timestamp",
}


@pytest.mark.parametrize("command", MADE.values(), ids=MADE)
def test_what_is_made_of_old_files_is_an_output(tmp_path, command):
    (tmp_path / "folder").mkdir()
    (tmp_path / "stamped").mkdir()
    (tmp_path / "stamped/.snakemake_timestamp").touch()
    (tmp_path / "source.txt").touch()
    for name in ("source.txt", "folder", "stamped/.snakemake_timestamp", "stamped"):
        os.utime(tmp_path / name, (0, 0))
    job = Job(tmp_path, command, ["out"])
    assert job.end()[0] == 0 and job.outcome["missing"] == []


def test_a_folder_and_a_link_from_before_count_once_snakemake_has_touched_them(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/.snakemake_timestamp").touch()
    (tmp_path / "link").symlink_to("folder")
    job = Job(tmp_path, "touch folder/.snakemake_timestamp; touch -h link", ["folder", "link"])
    assert job.end()[0] == 0 and job.outcome["missing"] == []


def test_a_dangling_link_is_no_output(tmp_path):
    job = Job(tmp_path, "ln -s nothing out", ["out"])
    assert job.end()[0] == 1 and job.outcome["missing"] == ["out"]


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
        with contextlib.suppress(ProcessLookupError):  # a `sleep 0.1` that is over
            os.kill(pid, signal.SIGTERM)
    assert job.end()[0] == 128 + signal.SIGTERM
    assert job.outcome is None and (tmp_path / "saved").exists() and (tmp_path / "12.stop.0").exists()


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
