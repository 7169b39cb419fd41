"""Many short Slurm jobs from one submit host: our executor against Snakemake's standard Slurm plugin.

    python -m pip install --target /tmp/standard --no-deps snakemake-executor-plugin-slurm==2.8.0 \
        snakemake-executor-plugin-slurm-jobstep==0.6.1
    python perf/slurm_jobs.py --jobs 200 --rounds 2 --standard /tmp/standard

Starts a Slurm cluster of its own on this machine (root; tests/slurm/cluster.py) and runs the same workflow, N jobs
that only touch their output, with each executor in turn, in alternating order. Another job holds all nodes until every
job is submitted, so that submitting does not share the processors with running, and a dry run precedes each run. The
standard plugin is on the path only where it runs. Reported per run, and as ratios of the runs of one round:

    queued s     from Snakemake's start until the last job is in the queue
    memory       peak of Snakemake's process on the submit host
    CPU          user and system seconds of Snakemake and of the Slurm commands that it calls
    queries/min  calls of squeue, sacct, scontrol, sinfo and sacctmgr per minute on the submit host
    in jobs      calls of Slurm's commands inside the jobs
    wall         from start to end, the jobs included

Then what Snakemake costs inside a job: `--overhead` jobs that run the bare command through submitit against the same
number that run it as Snakemake jobs, in pairs.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from promptecho.bench.report import significant

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "slurm"))

from cluster import Cluster  # noqa: E402

COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "sinfo", "sacctmgr", "scancel", "srun")
SNAKEFILE = """
rule all:
    input: expand("out/{{k}}.txt", k=range({n}))

rule short:
    output: "out/{{k}}.txt"
    threads: 1
    resources: runtime=5, mem_mb=100, slurm_partition="main", slurm_account="lab"
    shell: "touch {{output}}"
"""
EXECUTORS = {
    "submitit": ["--executor", "submitit"],
    "standard": ["--executor", "slurm", "--slurm-init-seconds-before-status-checks", "5"],
    # An array of more than about 90 tasks does not fit into one argument (128 KiB), and then fails: the plugin writes a
    # script instead, in which an option of its command stands on a line by itself.
    "standard, arrays": [
        "--executor", "slurm", "--slurm-init-seconds-before-status-checks", "5", "--slurm-array-jobs", "all",
        "--slurm-array-limit", "50",
    ],
}  # fmt: skip


@dataclass
class Measured:
    """One run of the workflow."""

    wall_s: float
    queued_s: float
    submissions: int
    queries: int
    in_jobs: int
    peak_mb: float
    cpu_s: float

    def row(self) -> dict[str, float]:
        return {
            "queued s": self.queued_s,
            "sbatch calls": self.submissions,
            "queries/min": 60 * self.queries / self.wall_s,
            "in jobs": self.in_jobs,
            "memory MB": self.peak_mb,
            "CPU s": self.cpu_s,
            "wall s": self.wall_s,
        }


def run(name: str, n: int, cluster: Cluster, standard: Path | None, interval: int) -> Measured:
    """Run the workflow once with one executor, in a fresh folder."""
    with tempfile.TemporaryDirectory(prefix="slurm-jobs-") as folder:
        here = Path(folder)
        (here / "Snakefile").write_text(SNAKEFILE.format(n=n))
        (here / "bin").mkdir()
        calls = here / "calls"
        for command in COMMANDS:
            real = shutil.which(command, path=cluster.environment["PATH"])
            script = here / "bin" / command
            script.write_text(
                # The standard plugin's job step drops SLURM_CONF, which a cluster in a folder of its own needs.
                f"#!/bin/bash\nexport SLURM_CONF={cluster.conf}\n"
                f'echo {command} ${{SLURM_JOB_ID:-host}} >> {calls}\nexec {real} "$@"\n'
            )
            script.chmod(0o755)
        environment = {**cluster.environment, "HOME": folder}
        environment["PATH"] = f"{here / 'bin'}:{Path(sys.executable).parent}:{environment['PATH']}"
        if name != "submitit":  # Snakemake imports every executor it finds, and the standard one imports pandas
            environment["PYTHONPATH"] = str(standard.absolute())  # runs in another folder
        snakemake = Path(sys.executable).parent / "snakemake"
        # So that no run pays for compiling and reading what the next one finds in memory.
        subprocess.run(
            [snakemake, *EXECUTORS[name], "--jobs", "1", "--dry-run", "--quiet", "all"],
            cwd=here, env=environment, check=True, capture_output=True,
        )  # fmt: skip
        calls.unlink(missing_ok=True)
        blocker = cluster.run(
            "sbatch", "--parsable", f"--nodes={len(cluster.nodes())}", "--exclusive", "--output=/dev/null",
            "--wrap=sleep 3600",
        ).strip()  # fmt: skip
        cluster.wait(lambda: "RUNNING" in cluster.run("squeue", "-h", "-j", blocker, "-o", "%T"), "the blocker")
        begin = time.monotonic()
        with (here / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    snakemake, *EXECUTORS[name], "--jobs", str(n + 1),
                    "--seconds-between-status-checks", str(interval), "--latency-wait", "5", "--quiet", "rules",
                ],
                cwd=here, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
            peak = Peak(process.pid)

            def all_queued() -> bool:
                if process.poll() is not None:
                    raise RunError(f"{name}: Snakemake has ended early:\n{(here / 'log').read_text()[-3000:]}")
                return len(cluster.run("squeue", "-h", "-r", "-t", "PENDING", "-o", "%i").splitlines()) >= n

            cluster.wait(all_queued, f"{n} queued jobs", 600)
            queued = time.monotonic() - begin
            cluster.run("scancel", blocker)
            _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - begin
        peak.stop()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode or len(list((here / "out").iterdir())) != n:
            raise RunError(f"{name}: exit code {process.returncode}:\n{(here / 'log').read_text()[-3000:]}")
        rows = [line.split() for line in calls.read_text().splitlines()]
        host = [(command, where) for command, where in rows if where == "host"]
        return Measured(
            wall_s=wall,
            queued_s=queued,
            submissions=sum(command == "sbatch" for command, _ in host),
            queries=sum(command not in ("sbatch", "scancel") for command, _ in host),
            in_jobs=len(rows) - len(host),
            peak_mb=peak.mb,
            cpu_s=usage.ru_utime + usage.ru_stime,
        )


class RunError(RuntimeError):
    """An executor did not make all outputs."""


class Peak(threading.Thread):
    """The largest resident memory that a process has shown, in MB (VmHWM, as the kernel counts it)."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self.pid, self.mb, self._on = pid, 0.0, True
        self.start()

    def run(self) -> None:
        while self._on:
            try:
                text = Path(f"/proc/{self.pid}/status").read_text()
                self.mb = max(self.mb, int(re.search(r"VmHWM:\s+(\d+)", text)[1]) / 1000)
            except (OSError, TypeError):
                pass
            time.sleep(0.2)

    def stop(self) -> None:
        self._on = False
        self.join()


def overhead(n: int, cluster: Cluster) -> tuple[list[float], list[float]]:
    """Seconds inside the job of `touch` as the bare command, and as a Snakemake job, n times each, one by one."""
    bare, snakemake = [], []
    with tempfile.TemporaryDirectory(prefix="slurm-overhead-") as folder:
        here = Path(folder)
        (here / "Snakefile").write_text(SNAKEFILE.format(n=n))
        environment = {**cluster.environment, "HOME": folder}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        for k in range(n):
            script = (
                "import sys, pathlib\n"
                "from snakemake_executor_plugin_submitit.payload import JobPayload\n"
                "from snakemake_executor_plugin_submitit.submission import ArrayExecutor\n"
                "from snakemake_executor_plugin_submitit.resources import request_of\n"
                "folder = pathlib.Path(sys.argv[1]); folder.mkdir()\n"
                "request = request_of('bare', {'runtime': 5, 'mem_mb': 100}, 1)\n"
                "payload = JobPayload('touch out.txt', 'bare', ['out.txt'], workdir=sys.argv[1], folder=sys.argv[1],\n"
                "                  signal_delay_s=60, requeue_limit=0)\n"
                "ArrayExecutor(folder, request.sbatch_parameters(), name='bare', comment='bare', signal_delay_s=60)"
                ".submit_all([payload], 60, lambda state: None)\n"
            )
            subprocess.run(
                [sys.executable, "-c", script, str(here / f"bare{k}")], cwd=here, env=environment, check=True
            )
            bare.append(_seconds(here, f"bare{k}", cluster))
            subprocess.run(
                [Path(sys.executable).parent / "snakemake", "--executor", "submitit", "--jobs", "1", "--quiet", "all",
                 "--seconds-between-status-checks", "1", "--submitit-logdir", f"job{k}", "--", f"out/{k}.txt"],
                cwd=here, env=environment, check=True,
            )  # fmt: skip
            snakemake.append(_seconds(here, f"job{k}", cluster))
    return bare, snakemake


def _seconds(here: Path, folder: str, cluster: Cluster) -> float:
    def found() -> re.Match | None:
        logs = list((here / folder).rglob("*_log.out"))
        return re.search(r"exit code 0 after ([\d.]+) s", logs[0].read_text()) if logs else None

    cluster.wait(lambda: found() is not None, f"the end of {folder}")
    return float(found()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--interval", type=int, default=5, help="Seconds between status checks, for all executors.")
    parser.add_argument("--standard", type=Path, help="Folder that the standard plugin was installed to.")
    parser.add_argument("--executors", nargs="+", choices=list(EXECUTORS), help="All of them where not given.")
    parser.add_argument("--overhead", type=int, default=10)
    parser.add_argument("--cpus", type=int, default=1, help="Processors per node; two nodes.")
    given = parser.parse_args()
    console = Console(width=120)
    names = list(given.executors or EXECUTORS) if given.standard else ["submitit"]
    cluster = Cluster(Path(tempfile.mkdtemp(prefix="slurm-perf-")) / "cluster")
    cluster.up(nodes=2, cpus=given.cpus, max_array_size=1001)
    try:
        rows: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for turn in range(given.rounds):
            for name in list(names) if turn % 2 == 0 else list(reversed(names)):
                console.print(f"round {turn + 1} of {given.rounds}: {given.jobs} jobs, {name}")
                try:
                    rows[name].append(run(name, given.jobs, cluster, given.standard, given.interval).row())
                except RunError as error:
                    if name == "submitit":
                        raise
                    console.print(f"LEFT OUT: {error}")
                    del rows[name]
                    names.remove(name)
        bare, inside = overhead(given.overhead, cluster)
    finally:
        cluster.down()
    keys = list(rows["submitit"][0])
    table = Table(*["executor", *keys], title=f"{given.jobs} jobs, median of {given.rounds} (range)")
    for name, measured in rows.items():
        table.add_row(name, *[significant([row[key] for row in measured]) for key in keys])
    console.print(table)
    for name in names[1:]:
        ratios = Table(*["", *keys], title=f"{name} / submitit, per round")
        pairs = list(zip(rows[name], rows["submitit"], strict=True))
        ratios.add_row("ratio", *[significant([other[key] / ours[key] for other, ours in pairs]) for key in keys])
        console.print(ratios)
    pairs = [b - a for a, b in zip(bare, inside, strict=True)]
    console.print(
        f"inside a job, n = {given.overhead} pairs: bare {significant(bare)} s, as Snakemake job "
        f"{significant(inside)} s, difference {significant(pairs)} s, median (range)"
    )


if __name__ == "__main__":
    main()
