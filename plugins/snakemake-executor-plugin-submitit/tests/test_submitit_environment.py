"""What of this process's environment would reach jobs and mislead them."""

from __future__ import annotations

import pytest

from snakemake_executor_plugin_submitit import slurm


@pytest.fixture
def environment(monkeypatch):
    def of(**variables: str) -> dict[str, str]:
        found = {"PATH": "/bin", "SLURM_CONF": "/etc/slurm.conf", "SLURM_MPI_TYPE": "pmix", **variables}
        monkeypatch.setattr(slurm.os, "environ", found)
        return found

    return of


@pytest.mark.parametrize(
    "left", ["SLURM_JOB_ID", "SLURM_JOBID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_STEP_ID",
             "SLURM_PROCID", "SLURM_RESTART_COUNT"],
)  # fmt: skip
def test_what_is_left_of_another_job_is_taken_out(environment, left):
    now = environment(**{left: "3"})
    assert slurm.clean_environment() == sorted([left, "SLURM_MPI_TYPE"])
    assert now == {"PATH": "/bin", "SLURM_CONF": "/etc/slurm.conf"}


def test_settings_of_srun_stay_outside_of_jobs(environment):
    now = environment(SLURM_CPU_BIND="none")
    assert slurm.clean_environment() == [] and now["SLURM_MPI_TYPE"] == "pmix"


def test_what_would_change_sbatch_or_submitit_is_taken_out_anywhere(environment):
    environment(SBATCH_PARTITION="x", SUBMITIT_PREEMPT_SIGNAL="USR1")
    assert slurm.clean_environment() == ["SBATCH_PARTITION", "SUBMITIT_PREEMPT_SIGNAL"]
