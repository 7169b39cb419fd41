"""`make clean-results` names what it deletes, asks, and leaves results alone that somebody still works on."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Stands in for Slurm's: its columns are id, state, reason, name and batch script.
SQUEUE = "#!/bin/sh\n{}\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "it's a größe"
    (root / "scripts").mkdir(parents=True)
    for name in ("Makefile", "scripts/clean_results.py"):
        shutil.copy(ROOT / name, root / name)
    (root / "plugins").symlink_to(ROOT / "plugins")
    (root / ".venv").symlink_to(sys.prefix)
    for name in (
        "results/README.md",
        "results/tiny/runs/a/20/adapter/a",
        ".snakemake/metadata/x",
        ".snakemake/conda/env",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(bytes(1500))
    return root


def clean(root: Path, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", "clean-results", *arguments]
    options = {"stdin": subprocess.DEVNULL, **options}
    return subprocess.run(
        command, cwd=root, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **options
    )


def there(root: Path) -> set[str]:
    found = (path for folder in ("results", ".snakemake") for path in (root / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(root)) for path in found}


def test_nothing_goes_without_a_yes(checkout):
    before = there(checkout)
    result = clean(checkout)
    assert result.returncode != 0 and "make clean-results CONFIRM=yes" in result.stdout
    assert "results/tiny  1 file, 1.5 KB" in result.stdout and ".snakemake/metadata  1 file" in result.stdout
    for answer in ("no\n", "y\n", "\n", "\x04"):  # the last is Ctrl-D
        keyboard, terminal = pty.openpty()
        os.write(keyboard, answer.encode())
        said = clean(checkout, stdin=terminal).stdout
        assert "nothing was deleted" in said and "Traceback" not in said
        os.close(keyboard)
        os.close(terminal)
    assert clean(checkout, "CONFIRM=no").returncode != 0
    assert there(checkout) == before


@pytest.mark.parametrize("way", ["typed", "given"])
def test_what_was_named_goes(checkout, way):
    if way == "given":
        result = clean(checkout, "CONFIRM=yes")
    else:
        keyboard, terminal = pty.openpty()
        os.write(keyboard, b"yes\n")
        result = clean(checkout, stdin=terminal)
    assert result.returncode == 0, result.stdout
    assert there(checkout) == {"results/README.md", ".snakemake/conda/env"}
    assert "nothing to delete" in clean(checkout, "CONFIRM=yes").stdout


def submitted(root: Path, folder: str) -> Path:
    """A ledger with two jobs of an array that nobody has seen end, and one that has ended."""
    place = root / folder
    place.mkdir(parents=True, exist_ok=True)
    entry = {"key": "k", "fingerprint": "f", "request": "r", "name": "n"}
    intent = {"event": "intent", "time": 0, "resubmissions": 0}
    events = [
        {**intent, "token": "t", "folder": f"{folder}/t", "entries": [entry] * 2},
        {"event": "submitted", "token": "t", "slurm_id": "12"},
        {**intent, "token": "u", "folder": f"{folder}/u", "entries": [entry]},
        {"event": "ended", "token": "u", "index": 0, "outcome": "success"},
    ]
    (place / "ledger.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return place / "ledger.jsonl"


def test_results_of_jobs_in_the_queue_stay(checkout, tmp_path):
    folder = "my logs"
    ledger = submitted(checkout, folder)
    submitted(checkout, ".snakemake/submitit")
    (checkout / "profiles/slurm").mkdir(parents=True)
    (checkout / "profiles/slurm/config.yaml").write_text(f"submitit-logdir: {folder}\n")
    before = there(checkout)
    squeue = tmp_path / "bin/squeue"
    squeue.parent.mkdir()
    environment = {**os.environ, "PATH": f"{squeue.parent}:{os.environ['PATH']}"}
    for script, said in {
        "echo '12_0|RUNNING|None|n|/x'; echo '12_1|PENDING|None|n|/x'; echo '7|RUNNING|None|n|/y'": "scancel 12_0 12_1",
        f"echo '9|PENDING|Priority|n|{checkout}/{folder}/t/submission.sh'".replace("it's", "it'\\''s"): "scancel 9",
        "echo 'Unable to contact slurm controller' >&2; exit 1": "Slurm can't be asked",
    }.items():
        squeue.write_text(SQUEUE.format(script))
        squeue.chmod(0o755)
        result = clean(checkout, "CONFIRM=yes", env=environment)
        assert result.returncode != 0 and said in result.stdout, result.stdout
        assert there(checkout) == before and ledger.exists()
    squeue.write_text(SQUEUE.format("echo '12_0|COMPLETED|None|n|/x'; echo '12_1|CANCELLED|None|n|/x'"))
    assert clean(checkout, "CONFIRM=yes", env=environment).returncode == 0
    assert there(checkout) == {"results/README.md", ".snakemake/conda/env"}


@pytest.mark.parametrize("folder", ["slurm logs", "logs/größe"])
def test_a_ledger_that_no_profile_names_is_found_in_the_checkout(checkout, tmp_path, folder):
    ledger = submitted(checkout, folder)
    squeue = tmp_path / "bin/squeue"
    squeue.parent.mkdir()
    environment = {**os.environ, "PATH": f"{squeue.parent}:{os.environ['PATH']}"}
    squeue.write_text(SQUEUE.format("echo '12_1|PENDING|None|n|/x'"))
    squeue.chmod(0o755)
    result = clean(checkout, "CONFIRM=yes", env=environment)
    assert result.returncode != 0 and "scancel 12_1" in result.stdout and ledger.exists(), result.stdout
    squeue.write_text(SQUEUE.format("true"))
    said = clean(checkout, env=environment).stdout
    assert f"looked at these records of Slurm jobs: {checkout}/{folder};" in said and "with squeue" in said


def test_a_running_snakemake_is_left_alone(checkout):
    (checkout / ".snakemake/locks").mkdir()
    (checkout / ".snakemake/locks/0.output.lock").write_text("x\n")
    before = there(checkout)
    result = clean(checkout, "CONFIRM=yes")
    assert result.returncode != 0 and "Snakemake is at work here, or was killed" in result.stdout
    assert there(checkout) == before
