"""Calls of Slurm's commands: how they end, and how long is tried."""

from __future__ import annotations

import pytest

from snakemake_executor_plugin_submitit import slurm
from snakemake_executor_plugin_submitit.slurm import (
    SlurmError,
    SlurmLimitError,
    SlurmUnclearError,
    SlurmUnreachableError,
    patiently,
    run,
)


@pytest.fixture
def command(tmp_path):
    def make(script: str) -> str:
        path = tmp_path / "sbatch"
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def ending():
    slurm.ENDING.now = False
    yield slurm.ENDING
    slurm.ENDING.now = False


def test_output_and_words(command):
    done = run(command("echo 12; echo hello >&2"))
    assert (done.stdout, done.stderr) == ("12\n", "hello\n")


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("echo 'sbatch: error: Batch job submission failed: Connection timed out' >&2; exit 1", SlurmUnreachableError),
        ("kill -INT $$", SlurmUnreachableError),  # it may have had its effect
        ("exit 1", SlurmUnclearError),
        ("echo 'sbatch: error: Slurm job queue full, sleeping and retrying.' >&2; sleep 300", SlurmLimitError),
    ],
)
def test_failures_by_kind(command, script, error):
    with pytest.raises(error):
        run(command(script))


def test_no_command():
    with pytest.raises(SlurmError, match="not found; run Snakemake on a host with Slurm's commands"):
        run("sbatch-that-is-not-there")


def test_a_command_that_hangs_when_snakemake_ends_is_given_up_soon(command, ending):
    ending.now = True
    with pytest.raises(SlurmUnreachableError, match="no answer within 5 s"):
        run(command("sleep 300"))


def tries(error: type[Exception], seconds: float, **options) -> int:
    made = []

    def fail():
        made.append(1)
        if len(made) == 2:
            slurm.ENDING.now = True
        raise error("x")

    with pytest.raises(error):
        patiently(fail, seconds, **options)
    return len(made)


def test_what_may_pass_is_tried_again_until_snakemake_ends(ending):
    assert tries(SlurmUnreachableError, 600) == 2


def test_an_unknown_error_is_tried_again_too(ending):
    assert tries(SlurmUnclearError, 600) == 2


def test_a_refusal_is_not(ending):
    assert tries(SlurmError, 600) == 1


def test_what_must_be_done_at_the_end_is_tried_again_all_the_same(ending):
    assert tries(SlurmUnreachableError, 3, hurried=False) > 2


def test_what_a_failed_command_has_written_is_not_lost(command):
    """As of a wrapper around sbatch that fails after it: the job is in the queue."""
    with pytest.raises(SlurmError, match="Permission denied") as raised:
        run(command("echo 17; echo 'usage.log: Permission denied' >&2; exit 1"))
    assert raised.value.stdout == "17\n"
