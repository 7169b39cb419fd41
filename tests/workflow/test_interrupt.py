"""Ctrl-C ends Snakemake in one sentence; what failed for another reason is still shown. Real terminals' signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RULES = Path(__file__).resolve().parent.parent.parent / "workflow/rules/common_interrupt.smk"
SNAKEFILE = """\
import sys
include: "{rules}"
rule all:
    input: "piped", "saved", "other"
rule piped: # as training: its log goes through tee
    output: "piped"
    shell: "set -o pipefail; (touch piped.on; sleep 600) 2>&1 | tee -i piped.log; touch {{output}}"
rule saved: # as training that has saved its state
    output: "saved"
    shell: "(trap 'exit 75' INT; touch saved.on; sleep 600); touch {{output}}"
rule other:
    output: "other"
    shell: "({other} touch other.on; sleep 600); touch {{output}}"
"""


def interrupted(folder: Path, other: str, *options: str) -> tuple[int, str]:
    """Run three jobs side by side and press Ctrl-C once all of them work; exit code and what the terminal shows."""
    (folder / "Snakefile").write_text(SNAKEFILE.format(rules=RULES, other=other))
    process = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "3", "--keep-going", "--quiet", "host", "reason", *options],
        cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    while not all((folder / f"{name}.on").exists() for name in ("piped", "saved", "other")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate()
    return process.returncode, said


def test_ctrl_c_is_one_sentence(tmp_path):
    code, said = interrupted(tmp_path, "")
    assert code != 0
    assert said.splitlines()[-1] == "interrupted; the same command goes on"
    for word in ("RuleException", "Error", "failed", "Traceback"):
        assert word not in said, said
    assert not any((tmp_path / name).exists() for name in ("piped", "saved", "other"))


@pytest.mark.parametrize("options", [[], ["--verbose"]], ids=["failure", "verbose"])
def test_a_failure_at_the_same_time_is_shown(tmp_path, options):
    other = "trap 'echo the disk is full; exit 9' INT;" if options != ["--verbose"] else ""
    code, said = interrupted(tmp_path, other, *options)
    assert code != 0 and "At least one job did not complete successfully" in said
    if options == ["--verbose"]:  # everything
        assert said.count("RuleException") >= 3
    else:
        assert said.count("RuleException") == 1 and "the disk is full" in said and "exit status 9" in said
        assert said.count("Error in rule") == 1 and "Error in rule other" in said
