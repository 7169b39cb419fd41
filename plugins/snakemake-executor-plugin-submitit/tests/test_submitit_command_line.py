"""Commands that no node could start are refused before they are submitted."""

from __future__ import annotations

import os
import resource
import subprocess
from types import SimpleNamespace

import pytest
from snakemake.target_jobs import parse_target_jobs_cli_args
from snakemake_interface_executor_plugins.utils import TargetSpec, encode_target_jobs_cli_args, format_cli_arg

from snakemake_executor_plugin_submitit import command_line

GROUP = SimpleNamespace(
    is_group=lambda: True, groupid="grp", toposorted=[[SimpleNamespace(is_group=lambda: False)] * 30_000]
)
SINGLE = SimpleNamespace(is_group=lambda: False)


def words(number: int, length: int = 100) -> str:
    return "true " + " ".join(["x" * length] * number)


def starts(command: str, environment: dict[str, str]) -> bool:
    try:
        return subprocess.run(command.split(), env=environment).returncode == 0
    except OSError:
        return False


def test_what_is_refused_can_t_be_started_and_what_is_not_refused_can():
    most = command_line._limit()
    environment = {"PATH": os.environ["PATH"], "LONG": "y" * 100_000}
    for size, problem in ((most // 2, False), (most - 350_000, False), (most + 100_000, True)):
        command = words(size // 109)
        assert (command_line.why_too_long(GROUP, command, environment) is not None) == problem
        assert starts(command, environment) != problem


def test_the_error_names_size_and_fix():
    limit = resource.getrlimit(resource.RLIMIT_STACK)
    try:
        resource.setrlimit(resource.RLIMIT_STACK, (8 * 1024 * 1024, limit[1]))
        text = command_line.why_too_long(GROUP, words(30_000), {})
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, limit)
    assert text == (
        "its command line and environment have 3,270 kB, but this system takes 2,032 kB; make the group smaller: it "
        "has 30000 jobs; about 16774 fit (--group-components grp=N)"
    )
    assert "--config" in command_line.why_too_long(SINGLE, words(70_000), {})


def test_one_argument_has_a_limit_of_its_own():
    text = command_line.why_too_long(SINGLE, words(1, 131_072), {})
    assert text.startswith("its command has an argument of 131 kB (xxx") and not starts(words(1, 131_072), {})
    assert command_line.why_too_long(SINGLE, words(1, 131_071), {}) is None and starts(words(1, 131_071), {})


def test_short_commands_are_not_looked_at():
    assert command_line.why_too_long(SINGLE, "it's no shell command", {}) is None


@pytest.mark.parametrize(
    ("values", "fits"),
    [
        (["plain"], True), (["a b", "$HOME", "per%cent", "st*r", "\u00fc", "a;b&(c)", "a=b", "#x", "~", "-x"], True),
        (["it's"], True), (['a"b'], True), (["a:b"], True),
        (["a,b"], False), (["back\\slash"], False), (["tab\tx"], False), (["no\u00a0break"], False),
        (["it's $HOME"], False), (["it's `id`"], False), (["q'uo\"te"], False), (["it's", 'a"b'], False),
        (["'quoted'"], False), (['end"'], False),
    ],
)  # fmt: skip
def test_wildcards_that_snakemake_can_t_hand_on_are_refused(tmp_path, values, fits):
    """Judged by what arrives, through its own functions and a shell."""
    wildcards = {f"k{number}": value for number, value in enumerate(values)}
    job = SimpleNamespace(is_group=lambda: False, wildcards_dict=wildcards)
    problem = command_line.why_not_named(job)
    assert (problem is None) == fits
    assert fits or problem.startswith("wildcard k0=")
    option = format_cli_arg("--target-jobs", encode_target_jobs_cli_args([TargetSpec("part", wildcards)]))
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {option}"], capture_output=True, text=True, cwd=tmp_path, env={"HOME": "/"}
    )
    words = done.stdout.split("\0")[1:-1]
    try:
        arrived = parse_target_jobs_cli_args(words) == [TargetSpec("part", wildcards)] and done.returncode == 0
    except ValueError:
        arrived = False
    assert arrived == fits
