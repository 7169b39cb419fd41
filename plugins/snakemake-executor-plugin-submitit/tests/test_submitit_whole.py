"""A whole workflow, from Snakemake to the jobs and back; in place of a cluster, `sbatch` starts the script here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


# Its main thread tells of ends late, as on a busy machine; what log handlers hear is written down.
BUSY = """\
import logging, time
from snakemake.scheduling.job_scheduler import JobScheduler
from snakemake_interface_logger_plugins.common import LogEvent

if workflow.is_main_process:
    finish_jobs = JobScheduler._finish_jobs
    def finish_later(self):
        time.sleep(2.5 if self._tofinish else 0)
        finish_jobs(self)
    JobScheduler._finish_jobs = finish_later

    class Handler(logging.Handler):
        def emit(self, record):
            event = getattr(record, "event", None)
            if event == LogEvent.JOB_STARTED and "Slurm job" in record.getMessage():
                print("start", *record.jobs, file=open("events", "a"))
            elif event == LogEvent.JOB_FINISHED:
                print("end", record.job_id, file=open("events", "a"))
            elif event == LogEvent.JOB_ERROR:
                print("end", record.jobid, file=open("events", "a"))
    logging.getLogger("snakemake").addHandler(Handler())

rule all:
    input: expand("out/{k}.txt", k=range(3))
    localrule: True
rule part:
    output: "out/{k}.txt"
    resources: runtime=5, mem_mb=100
    shell: "test {wildcards.k} != 2 && touch {output}"
"""


def run(folder: Path, snakefile: str, sbatch: str, *arguments: str) -> tuple[int, str]:
    """Snakemake's exit code, and what it and the jobs have said."""
    (folder / "Snakefile").write_text(snakefile)
    (folder / "bin").mkdir()
    (folder / "bin/sbatch").write_text(sbatch)
    (folder / "bin/sbatch").chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    environment |= {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "HOME": str(folder)}
    command = [sys.executable, "-m", "snakemake", "--executor", "submitit", "--jobs", "4", "--submitit-skip-checks"]
    command += ["--seconds-between-status-checks", "1", "--default-resources", "slurm_account=lab", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    logs = "".join(log.read_text() for log in (folder / "bin").glob("*.log"))
    return done.returncode, done.stdout + done.stderr + logs


def test_a_workflow_runs_as_jobs_and_leaves_nothing_open(tmp_path):
    tmp_path = tmp_path / "it's a flöw"  # a name that shells trip over
    tmp_path.mkdir()
    code, said = run(tmp_path, SNAKEFILE, SBATCH)
    assert code == 0, said
    assert (tmp_path / "whole.txt").read_text() == "01"
    assert len((tmp_path / "bin/scripts").read_text().splitlines()) == 2  # the two parts are one array
    assert len(list((tmp_path / ".snakemake/submitit").glob("job_start-*.py"))) == 1
    assert "41_0" in said and "41_1" in said and "43" in said
    assert list(Ledger(tmp_path / ".snakemake/submitit/ledger.jsonl").open_tasks()) == []


def test_no_start_is_told_before_the_end_that_made_room(tmp_path):
    """One job at a time; the last one fails, and Snakemake tells of failures in another thread than of other ends."""
    one_at_a_time = SBATCH.replace('bash "$script" >', 'flock room bash "$script" >')
    code, said = run(tmp_path, BUSY, one_at_a_time, "--keep-going", "--submitit-plain-start")
    assert not list((tmp_path / ".snakemake/submitit").glob("job_start-*.py"))
    assert code == 1 and "2 of 4 steps" in said, said
    told = [line.split() for line in (tmp_path / "events").read_text().splitlines()]
    assert [what for what, _ in told] == ["start", "end"] * 3
    assert [job for _, job in told[::2]] == [job for _, job in told[1::2]]
