"""The command that runs one job alone again, and names of folders."""

from __future__ import annotations

import shlex
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakemake_executor_plugin_submitit.identity import folder_name, job_name
from snakemake_executor_plugin_submitit.rerun import rerun_command


@pytest.mark.parametrize(
    "words, targets",
    [
        ("--profile slurm -- all tables", "all tables"),
        ("--profile slurm all", "all"),
        ("all --profile slurm", "all"),
        ("all tables --profile slurm", "all tables"),
        ("tables --profile slurm all", "all tables"),
        ("--profile slurm -k all", "all"),
        ("--profile slurm -F -- all", "all"),
        ("--profile slurm", "all"),  # the default target
    ],
)
def test_other_targets_are_left_out_and_options_stay(words, targets):
    options = [word for word in words.split() if word in ("--profile", "slurm", "-k")]
    command = rerun_command(["snakemake", *words.split()], targets.split(), "a b.txt", sys.executable)
    assert shlex.split(command) == ["snakemake", *options, "--", "a b.txt"]


def test_values_of_options_that_look_like_targets_stay():
    words = ["all", "--until", "all", "--set", "x=1"]
    assert rerun_command(["snakemake", *words], ["all"], "t", "p") == "snakemake --until all --set x=1 -- t"
    words = ["--profile", "all", "all", "--jobs", "3"]
    assert rerun_command(["snakemake", *words], ["all"], "t", "p") == "snakemake --profile all --jobs 3 -- t"


def test_the_program_is_the_same(tmp_path, monkeypatch):
    program = tmp_path / "snakemake"
    program.write_text("")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert rerun_command([str(program)], [], "t", "p").split()[0] == str(program)
    assert rerun_command([".venv/bin/snakemake"], [], "t", "p").split()[0] == ".venv/bin/snakemake"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert rerun_command([str(program)], [], "t", "p").split()[0] == "snakemake"
    assert rerun_command(["/x/snakemake/__main__.py"], [], "t", "/v/python").startswith("/v/python -m snakemake -- t")


def job(rule: str, **wildcards: str):
    return SimpleNamespace(is_group=lambda: False, rule=SimpleNamespace(name=rule), wildcards_dict=wildcards)


def group(name: str):
    return SimpleNamespace(is_group=lambda: True, groupid=name)


TEXT = st.text("ab-./ ;'\"%\\$\n\x00é漢", max_size=300)


@given(TEXT)
def test_any_name_of_a_group_is_one_folder(name):
    found = folder_name(group(name))
    assert "/" not in found and found.strip(".") == found and len(found.encode()) <= 255


@given(st.text("ab漢", min_size=100, max_size=200), st.integers(0, 9), st.integers(10, 19))
def test_long_names_of_jobs_differ_after_the_cut(value, one, other):
    names = {job_name("smk", job("rule", a=value, b=value, c=str(number))) for number in (one, other)}
    assert len(names) == 2 and all(f"smk.rule.{value}"[:40] == name[:40] for name in names)


@given(TEXT, TEXT)
def test_names_of_jobs_are_one_word_of_limited_length(first, second):
    name = job_name("smk", job("rule", a=first, b=second))
    assert name.startswith("smk.rule.") and len(name.removeprefix("smk.").encode()) <= 120
    assert len(shlex.split(name)) == 1 and not set(name) & set("/\\;$`'\"%, \n")
