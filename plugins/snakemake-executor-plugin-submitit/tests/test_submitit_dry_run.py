"""Resources are refused by a dry run already, with no cluster near, and only where the executor is chosen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

SNAKEFILE = """\
rule all:
    input: "b"
    localrule: True
    resources: nodes=-1
rule train:
    output: "a"
    threads: 4
    resources: runtime="2h", mem="4G", nodes=2, gpu=4
    shell: "touch {output}"
rule score:
    input: "a"
    output: "b"
    resources: mem_mb_per_cpu=2000
    shell: "touch {output}"
"""


@pytest.fixture
def dry_run(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    # No Slurm, whatever this machine has.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/bash").symlink_to(shutil.which("bash"))
    environment["PATH"] = str(tmp_path / "bin")

    def run(*words: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "snakemake", "-n", "--jobs", "4", *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_good_resources_pass_and_the_missing_cluster_is_mentioned_once(dry_run):
    code, text = dry_run("--executor", "submitit")
    assert code == 0 and text.count("sinfo is not on this machine") == 1
    assert "rule train:" in text


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_bad_resources_are_refused_with_rule_and_key(dry_run, quiet):
    shared = ["--default-resources", "slurm_acount=lab"]
    bad = ["--set-resources", "train:gpu=3", "score:slurm_partiton=main", *shared, *quiet]
    code, text = dry_run("--executor", "submitit", *bad)
    assert code == 1 and "Nothing was submitted" in text
    assert "rule train: gpu=3: counts the whole job and does not divide by nodes=2; give gpus_per_node" in text
    assert "rule score: slurm_partiton='main': no such resource; the nearest is slurm_partition" in text
    assert "rules train, score: slurm_acount='lab': no such resource; the nearest is slurm_account\n" in text
    assert "Traceback" not in text and "rule all: nodes" not in text


def test_other_executors_are_left_alone(dry_run):
    code, text = dry_run("--executor", "local", "--set-resources", "train:gpu=3")
    assert code == 0 and "submitted" not in text
