"""Many trivial Slurm jobs with faults among them: is every output made, none twice, and does Snakemake stay small?

    python perf/slurm_soak.py --jobs 2000 --faults 0.05 --seed 1

Starts a Slurm cluster of its own on this machine (root; tests/slurm/cluster.py) and runs N jobs in arrays through our
executor. Faults, as many as `--faults` of the jobs, come at random times from the seed, each kind at least once:

    scancel    of a running task; `--retries` makes it again
    node       slurmd and all jobs of a node are killed; the node comes back when Slurm has noticed
    snakemake  `kill -9`, `--unlock`, start again; in the first half only, so that one process lives long
    slurmctld  is stopped for up to ten seconds

At the end every output must be there and every job's run on record: a job holds a lock while it runs, so that two runs
at once are seen, and says when it was finished before; a second run is right only where a fault hit the first.
Descriptors and memory of Snakemake's longest process are compared, first quarter against last; the ledger and the queue
must be empty. A folder with all logs stays if anything is wrong, or where `--keep` says so.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "slurm"))
PLUGIN = ROOT / "plugins" / "snakemake-executor-plugin-submitit"
sys.path.insert(0, str(PLUGIN))

from cluster import Cluster  # noqa: E402

SNAKEFILE = """
rule all:
    input: expand("out/{{k}}.txt", k=range({n}))

rule short:
    output: "out/{{k}}.txt"
    resources: runtime=10, mem_mb=100
    shell: "bash job.sh {{wildcards.k}} {{output}}"
"""
# One line for each event; short lines that are appended stay whole.
JOB = """
life=${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}${{SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}}.${{SLURM_RESTART_COUNT:-0}}
exec 9> locks/$1
flock --nonblock 9 || echo twice $1 $life >> record
[ ! -e done/$1 ] || echo again $1 $life $(cat done/$1) >> record
echo begin $1 $life >> record
sleep {seconds} 9>&-
touch $2
echo $life > done/$1
echo end $1 $life >> record
"""
# How often, where every kind has come once.
KINDS = {"scancel": 6, "node": 1, "snakemake": 2, "slurmctld": 1}
PROGRESS_S = 30.0
# What is no growth: what Python and the allocator keep back, in MB, and the Slurm command of a moment.
MEMORY_SLACK_MB, MEMORY_SLACK, FD_SLACK = 20.0, 1.2, 10


@dataclass
class Life:
    """One process of Snakemake: seconds since its start, resident MB and open descriptors, now and then."""

    samples: list[tuple[float, float, int]] = field(default_factory=list)

    def quarters(self) -> tuple[tuple[float, int], tuple[float, int]] | None:
        """Median memory and most descriptors, in its first quarter and its last; not while it reads the workflow."""
        begin = next((n for n, one in enumerate(self.samples) if one[0] > 15), len(self.samples))
        kept = self.samples[begin:]
        if len(kept) < 8:
            return None
        part = len(kept) // 4
        first, last = kept[:part], kept[-part:]
        return tuple((statistics.median(s[1] for s in some), max(s[2] for s in some)) for some in (first, last))


class Driver:
    """Snakemake, started as often as it takes, and watched."""

    def __init__(self, folder: Path, cluster: Cluster, n: int, interval: int):
        self.folder, self.cluster, self.n, self.interval = folder, cluster, n, interval
        self.lives: list[Life] = []
        self.cpu_s, self.peak_mb, self.codes = 0.0, 0.0, []
        self.environment = {**cluster.environment, "HOME": str(folder), "PYTHONPATH": str(PLUGIN)}
        self.environment["PATH"] = f"{Path(sys.executable).parent}:{self.environment['PATH']}"
        self.process: subprocess.Popen | None = None
        self.start()
        threading.Thread(target=self._sample, daemon=True).start()

    def command(self, *arguments: str) -> list[str]:
        return [
            str(Path(sys.executable).parent / "snakemake"), "--executor", "submitit", "--jobs", str(self.n + 1),
            "--retries", "8", "--rerun-incomplete", "--keep-going", "--latency-wait", "5", "--quiet", "rules",
            "--seconds-between-status-checks", "2", "--submitit-status-interval", str(self.interval), *arguments,
        ]  # fmt: skip

    def start(self) -> None:
        with (self.folder / "snakemake.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self.begin = time.monotonic()
        self.lives.append(Life())

    def ended(self) -> bool:
        if self.process.returncode is None:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                self._note_end(status, usage)
        return self.process.returncode is not None

    def kill(self) -> None:
        """As the kernel does for lack of memory, or a host that is lost."""
        if self.ended():
            return
        os.kill(self.process.pid, signal.SIGKILL)
        _, status, usage = os.wait4(self.process.pid, 0)
        self._note_end(status, usage)

    def unlock(self) -> None:
        subprocess.run(self.command("--unlock"), cwd=self.folder, env=self.environment, check=True, capture_output=True)

    def nothing_left(self) -> bool:
        """Whether another start would find no work."""
        done = subprocess.run(
            self.command("--dry-run"), cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        return "Nothing to be done" in done.stdout + done.stderr

    def _note_end(self, status: int, usage) -> None:
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.codes.append(self.process.returncode)
        self.cpu_s += usage.ru_utime + usage.ru_stime  # the Slurm commands that it has called are in it

    def _sample(self) -> None:
        while True:
            pid, life, begin = self.process.pid, self.lives[-1], self.begin
            try:
                status = dict(
                    line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
                )
                fds = len(os.listdir(f"/proc/{pid}/fd"))
                memory = int(status["VmRSS"].split()[0]) / 1000
                self.peak_mb = max(self.peak_mb, int(status["VmHWM"].split()[0]) / 1000)
                life.samples.append((time.monotonic() - begin, memory, fds))
            except (OSError, KeyError):
                pass  # between two processes
            time.sleep(1)


class Faults:
    """From a seed: after how many outputs which fault comes."""

    def __init__(self, given: argparse.Namespace, cluster: Cluster, driver: Driver, say):
        n, self.random = given.jobs, random.Random(given.seed)
        self.cluster, self.driver, self.say = cluster, driver, say
        kinds = list(given.kinds)
        weights = [KINDS[kind] for kind in kinds]
        kinds += self.random.choices(kinds, weights, k=max(round(n * given.faults) - len(kinds), 0))
        until = {"snakemake": 0.5}
        self.plan = sorted((self.random.uniform(0.02, until.get(kind, 0.9)) * n, kind) for kind in kinds)
        self.done: Counter[str] = Counter()
        self.hit: set[str] = set()  # ids of Slurm jobs

    def due(self, made: int) -> str | None:
        return self.plan[0][1] if self.plan and made >= self.plan[0][0] else None

    def strike(self, kind: str) -> None:
        struck = getattr(self, f"_{kind}")()
        if not struck:
            return  # nothing runs just now; it stays planned
        self.plan.pop(0)
        self.done[kind] += 1
        self.say(f"fault {sum(self.done.values())}: {kind}: {struck}")

    def _running(self, *where: str) -> list[tuple[str, str]]:
        """Ids of running jobs: as people write them, and as each job has its own."""
        rows = self.cluster.run("squeue", "-h", "-r", "-t", "RUNNING", "-o", "%i %A", *where).splitlines()
        return [tuple(row.split()) for row in rows]

    def _scancel(self) -> str:
        running = self._running()
        if not running:
            return ""
        job_id, _ = self.random.choice(running)
        self.hit.add(job_id)
        self.cluster.run("scancel", job_id)
        return job_id

    def _node(self) -> str:
        node = self.random.choice(self.cluster.nodes())
        if not self._running("-w", node):
            return ""
        self.cluster.stop(f"slurmd.{node}", signal.SIGKILL)
        jobs = self._running("-w", node)  # none begins here any more
        for job_id, own in jobs:
            self.hit.add(job_id)
            for pid in self.cluster.processes_of(own):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.cluster.wait(lambda: "DOWN" in self._state(node), f"{node} down", 120)
        self.cluster.start(f"slurmd.{node}")
        self.cluster.wait(lambda: "DOWN" not in self._state(node), f"{node} up", 120)
        return f"{node} with {' '.join(job_id for job_id, _ in jobs) or 'no job'}"

    def _state(self, node: str) -> str:
        """All of the node's flags: sinfo shows a node that is down as `completing` while it owes an answer on a job."""
        return re.search(r" State=(\S+)", self.cluster.run("scontrol", "-o", "show", "node", node))[1]

    def _snakemake(self) -> str:
        self.driver.kill()
        away = self.random.uniform(0, 5)
        time.sleep(away)
        self.driver.unlock()
        self.driver.start()
        return f"away for {away:.0f} s and its unlocking"

    def _slurmctld(self) -> str:
        away = self.random.uniform(0, 10)
        self.cluster.stop("slurmctld")
        time.sleep(away)
        self.cluster.start("slurmctld")
        return f"away for {away:.0f} s"


def soak(given: argparse.Namespace, folder: Path, cluster: Cluster, say) -> tuple[list[str], Table]:
    """Run all, and return what is wrong and the figures."""
    for name in ("locks", "done", "out"):
        (folder / name).mkdir()
    (folder / "Snakefile").write_text(SNAKEFILE.format(n=given.jobs))
    (folder / "job.sh").write_text(JOB.format(seconds=given.seconds))
    begin = time.monotonic()
    driver = Driver(folder, cluster, given.jobs, given.interval)
    faults = Faults(given, cluster, driver, say)
    told, history = begin, [(begin, 0)]
    while True:
        made, now = len(os.listdir(folder / "done")), time.monotonic()
        if now - told >= PROGRESS_S:
            told = now
            history = [*[one for one in history if now - one[0] < 300], (now, made)]
            rate = (made - history[0][1]) / (now - history[0][0])
            left = f"{(given.jobs - made) / rate / 60:.0f} min left" if rate else "no end in sight"
            memory, fds = driver.lives[-1].samples[-1][1:] if driver.lives[-1].samples else (math.nan, 0)
            say(
                f"{made} of {given.jobs} made, {60 * rate:.0f} a minute, {left}; {sum(faults.done.values())} faults of "
                f"{sum(faults.done.values()) + len(faults.plan)}; Snakemake {memory:.0f} MB, {fds} descriptors"
            )
        if driver.ended():
            break
        kind = faults.due(made)
        if kind:
            faults.strike(kind)
        time.sleep(0.5)
    wall = time.monotonic() - begin
    return judge(given, folder, cluster, driver, faults), figures(given, wall, folder, driver, faults)


def judge(given, folder: Path, cluster: Cluster, driver: Driver, faults: Faults) -> list[str]:
    """What is wrong, one line each."""
    wrong = []
    if driver.codes[-1]:
        wrong.append(f"Snakemake ended with exit code {driver.codes[-1]}")
    missing = [k for k in range(given.jobs) if not (folder / "out" / f"{k}.txt").exists()]
    if missing:
        wrong.append(f"{len(missing)} outputs are missing, as {missing[0]}")
    for words in _record(folder):
        if words[0] == "twice":
            wrong.append(f"job {words[1]}: Slurm job {words[2]} ran while another run of it was alive")
        if words[0] == "again" and words[3].partition(".")[0] not in faults.hit:
            wrong.append(f"job {words[1]}: Slurm job {words[2]} made again what {words[3]} had finished")
    if faults.plan:
        wrong.append(f"{len(faults.plan)} faults did not come, as there was nothing to hit: {faults.plan}")
    queue = cluster.run("squeue", "-h", "-r", "-o", "%i %T").splitlines()
    if queue:
        wrong.append(f"{len(queue)} jobs are left in the queue: {queue[:3]}")
    if not driver.nothing_left():
        wrong.append("another start would find work")
    still_open = _open_entries(folder)
    if still_open:
        wrong.append(f"{still_open} entries of the ledger are open")
    quarters = _longest(driver).quarters()
    if quarters:
        (memory, fds), (memory_last, fds_last) = quarters
        if fds_last > fds + FD_SLACK:
            wrong.append(f"open descriptors grew from {fds} to {fds_last}")
        if memory_last > memory * MEMORY_SLACK + MEMORY_SLACK_MB:
            wrong.append(f"memory grew from {memory:.0f} to {memory_last:.0f} MB")
    return wrong


def _record(folder: Path) -> list[list[str]]:
    path = folder / "record"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def _open_entries(folder: Path) -> int:
    from snakemake_executor_plugin_submitit.ledger import Ledger

    return len(list(Ledger(folder / ".snakemake" / "submitit" / "ledger.jsonl").open_tasks()))


def _longest(driver: Driver) -> Life:
    return max(driver.lives, key=lambda life: len(life.samples))


def figures(given, wall: float, folder: Path, driver: Driver, faults: Faults) -> Table:
    table = Table("figure", "value", title=f"{given.jobs} jobs, seed {given.seed}")
    events = Counter(words[0] for words in _record(folder))
    repeated = events["begin"] - len({words[1] for words in _record(folder) if words[0] == "begin"})
    quarters = _longest(driver).quarters()
    rows = {
        "faults": ", ".join(f"{kind} {faults.done[kind]}" for kind in KINDS),
        "Slurm jobs that a fault hit": len(faults.hit),
        "runs begun, ended, repeated": f"{events['begin']}, {events['end']}, {repeated}",
        "ended before, and run again after a fault": events["again"],
        "processes of Snakemake": len(driver.lives),
        "wall, min": f"{wall / 60:.1f}",
        "CPU of Snakemake and its Slurm commands, s": f"{driver.cpu_s:.1f}",
        "peak memory of Snakemake, MB": f"{driver.peak_mb:.0f}",
    }
    if quarters:
        (memory, fds), (memory_last, fds_last) = quarters
        rows["its memory, first quarter and last, MB"] = f"{memory:.0f}, {memory_last:.0f}"
        rows["its descriptors, first quarter and last"] = f"{fds}, {fds_last}"
        rows["seconds of the process compared"] = f"{_longest(driver).samples[-1][0]:.0f}"
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--faults", type=float, default=0.05, help="As a share of the jobs.")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1, help="That each job sleeps.")
    parser.add_argument("--interval", type=int, default=10, help="Seconds between two calls of squeue.")
    parser.add_argument("--cpus", type=int, default=1, help="Processors per node; two nodes.")
    parser.add_argument("--folder", type=Path, help="A new one, for the workflow, the cluster and all logs.")
    parser.add_argument("--keep", action="store_true", help="Keep the folder when all is well too.")
    given = parser.parse_args()
    console = Console(width=120, highlight=False)
    folder = (given.folder or Path(tempfile.mkdtemp(prefix="slurm-soak-"))).absolute()
    (folder / "flow").mkdir(parents=True)
    cluster = Cluster(folder / "cluster")
    # So that `kill` ends the cluster too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    def say(text: str) -> None:
        console.print(f"{time.strftime('%H:%M:%S')} {text}", soft_wrap=True)

    say(f"in {folder}")
    cluster.up(nodes=2, cpus=given.cpus, max_array_size=1001)
    wrong = ["it was interrupted"]
    try:
        wrong, table = soak(given, folder / "flow", cluster, say)
    finally:
        cluster.down(keep_logs=bool(wrong) or given.keep)
    console.print(table)
    for line in wrong:
        say(f"WRONG: {line}")
    if wrong or given.keep:
        say(f"logs: {folder}")
    else:
        shutil.rmtree(folder)
        say("all is well")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
