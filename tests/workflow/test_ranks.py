"""The training rule as one process and as several."""

from __future__ import annotations

import shutil

SEVERAL = ("--set-resources", "train:nodes=2", "train:tasks_per_node=4")
CHECKPOINT = "results/tiny/runs/echo-s1/2/adapter"


def test_one_process_has_no_launcher_and_several_have_srun(workflow):
    shown = workflow.snakemake("--dry-run", "--printshellcmds", CHECKPOINT).stdout
    assert "python -m promptecho train" in shown and "ranks.sh" not in shown
    assert '${SNAKEMAKE_STOP_FILE:+--stop-file "$SNAKEMAKE_STOP_FILE"}' in shown
    shown = workflow.snakemake("--dry-run", "--printshellcmds", CHECKPOINT, *SEVERAL).stdout
    assert f"bash {workflow.root}/workflow/scripts/ranks.sh 2 4 2 python -m promptecho train" in shown


def test_another_number_of_processes_reruns_nothing(finished):
    assert finished.planned(*SEVERAL) == {}


def test_several_processes_without_slurm_are_refused_in_one_line(finished):
    shutil.rmtree(finished.root / "results/tiny/runs/echo-s1/2")
    result = finished.snakemake(CHECKPOINT, *SEVERAL)
    assert result.returncode != 0
    assert result.stdout.count("ranks.sh: 2 node(s) x 4 process(es): there is no Slurm job here; run this rule") == 1
