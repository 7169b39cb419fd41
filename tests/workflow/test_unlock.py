"""A killed Snakemake: its lock is removed, its jobs are waited for; a live one is left alone. Real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts/unlock.sh"
# A job that looks like ours (`python -m promptecho ...`) and works until it finds the file `go`.
JOB = """\
import pathlib, time
pathlib.Path("started").touch()
while not pathlib.Path("go").exists():
    time.sleep(0.1)
pathlib.Path("finished").touch()
"""
SNAKEFILE = f"""\
rule all:
    output: "out"
    shell: "{sys.executable} -m promptecho job && touch {{output}}"
"""


def start(folder: Path) -> subprocess.Popen:
    """Start Snakemake and wait until its job works."""
    snakemake = Path(sys.executable).with_name("snakemake")
    process = subprocess.Popen(
        [sys.executable, str(snakemake), "--cores", "1", "--rerun-incomplete"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not (folder / "started").exists():
        assert process.poll() is None, "Snakemake ended before its job began"
        time.sleep(0.05)
    return process


def unlock(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [str(SCRIPT), sys.executable, str(Path(sys.executable).with_name("snakemake")), "--cores", "1"],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.fixture
def folder(tmp_path: Path):
    (tmp_path / "promptecho").mkdir()
    (tmp_path / "promptecho/__init__.py").touch()
    (tmp_path / "promptecho/__main__.py").write_text(JOB)
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    yield tmp_path
    (tmp_path / "go").touch()  # whatever failed, no job is left behind


def locks(folder: Path) -> list[str]:
    place = folder / ".snakemake/locks"
    return os.listdir(place) if place.exists() else []


def test_live_snakemake_is_left_alone(folder):
    process = start(folder)
    attempt = unlock(folder)
    said, _ = attempt.communicate()
    assert attempt.returncode == 1
    assert f"already running here (process {process.pid})" in said
    assert locks(folder)
    (folder / "go").touch()
    assert process.wait() == 0
    assert (folder / "out").exists()


def test_killed_snakemake_is_cleaned_up_after_its_job(folder):
    process = start(folder)
    os.kill(process.pid, signal.SIGKILL)  # its job lives on
    process.wait()
    assert locks(folder)
    attempt = unlock(folder)
    said = attempt.stdout.readline()
    assert "waiting for jobs of an interrupted run" in said
    assert not (folder / "finished").exists()
    (folder / "go").touch()
    rest, _ = attempt.communicate()
    assert attempt.returncode == 0, rest
    assert (folder / "finished").exists()
    assert "removing the lock" in rest
    assert not locks(folder)


def test_nothing_to_do_without_lock(folder):
    attempt = unlock(folder)
    said, _ = attempt.communicate()
    assert (attempt.returncode, said) == (0, "")
