"""A whole workflow, from Snakemake to the jobs and back; in place of a cluster, `sbatch` starts the script here."""

from __future__ import annotations

import os
import subprocess
import sys

from snakemake_executor_plugin_submitit.ledger import Ledger

SNAKEFILE = """\
rule all:
    input: expand("out/{k}.txt", k=range(2)), "whole.txt"
    localrule: True
rule part:
    output: "out/{k}.txt"
    resources: runtime=5, mem_mb=100
    shell: "echo {wildcards.k} ${{SNAKEMAKE_STOP_FILE:?}} > {output}"
rule whole:
    input: expand("out/{k}.txt", k=range(2))
    output: "whole.txt"
    run:
        with open(output[0], "w") as file:
            file.write("".join(open(name).read().split()[0] for name in input))
"""
# As Slurm does, it answers with the job's id and starts the script elsewhere, each task of an array by itself.
SBATCH = """\
#!/bin/bash
cd "$(dirname "$0")"
id=$(( $(cat count 2> /dev/null || echo 40) + 1 )); echo $id > count
script="${@: -1}"; echo "$script" >> scripts
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
for task in $(seq 0 ${last:-0}); do
    job=(SLURM_JOB_ID=$((id + task)))
    [ -z "$last" ] || job+=(SLURM_ARRAY_JOB_ID=$id SLURM_ARRAY_TASK_ID=$task)
    setsid env "${job[@]}" SLURMD_NODENAME=n1 bash "$script" > $id-$task.log 2>&1 < /dev/null &
    echo $((id + task)) > count
done
echo $id
"""


def test_a_workflow_runs_as_jobs_and_leaves_nothing_open(tmp_path):
    tmp_path = tmp_path / "it's a flöw"  # a name that shells trip over
    tmp_path.mkdir()
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sbatch").write_text(SBATCH)
    (tmp_path / "bin/sbatch").chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    environment |= {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "snakemake", "--executor", "submitit", "--jobs", "4", "--submitit-skip-checks"]
    command += ["--seconds-between-status-checks", "1", "--default-resources", "slurm_account=lab"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    said = done.stdout + done.stderr
    logs = "".join(log.read_text() for log in (tmp_path / "bin").glob("*.log"))
    assert done.returncode == 0, said + logs
    assert (tmp_path / "whole.txt").read_text() == "01"
    assert len((tmp_path / "bin/scripts").read_text().splitlines()) == 2  # the two parts are one array
    assert "41_0" in said and "41_1" in said and "43" in said
    assert list(Ledger(tmp_path / ".snakemake/submitit/ledger.jsonl").open_tasks()) == []
