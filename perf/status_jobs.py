"""How long one look at an experiment takes: `promptecho status` on a simulated run of many jobs on Slurm.

    python perf/status_jobs.py --jobs 3000 --looks 5

What a run leaves is written into a folder: the list of jobs, half of them done with outputs, timings and logs, the
others submitted in arrays and noted in the executor's ledger, a tenth of these running; Snakemake's log and marks; two
trainings of 400 iterations; a judge's journal of 20,000 calls. Stand-ins for squeue and sacct print the queue from a
file (as many lines as there are jobs), without a Slurm behind them. A look is a process of its own, as for a person at
a terminal.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from promptecho.status.job_list import started_at

ROOT = Path(__file__).resolve().parent.parent
ARRAY, RUNS, ITERATIONS, CALLS = 500, 2, 400, 20_000
TIMING = (
    "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
    "900.0\t0:15:00\t9000.0\t1\t1\t1\t0\t0\t90\t800\n"
)


def make(root: Path, jobs: int) -> None:
    """What a run of so many jobs leaves in `root`, in the middle of it."""
    results, started = root / "results/big", time.time() - 3600
    listed = [_job(number, jobs) for number in range(jobs)]
    _write(results / "work/jobs/0123456789abcdef.json", json.dumps(_list(listed, started)))
    _write(results / "config/0123456789abcdef.yaml", _config())
    (root / ".snakemake/incomplete").mkdir(parents=True)
    done = [job for job in listed if job["rule"] == "generate_shard"][: jobs // 2]
    for job in done:
        for name, text in (("outputs", "{}\n"), ("timing", TIMING), ("log", "done\n")):
            _write(root / (job[name][0] if name == "outputs" else job[name]), text)
    told = "[Sat Nov 28 10:00:00 2026]\nJob {0}: images\n[Sat Nov 28 10:15:00 2026]\n"
    told += "Finished jobid: {0} (Rule: generate_shard)\n1 of 3000 steps (1%) done\nExecute 1 jobs...\n"
    stamp = time.strftime("%Y-%m-%dT%H%M%S", time.localtime(started - 5))
    log = "".join(told.format(number) for number in range(len(done)))
    _write(root / f".snakemake/log/{stamp}.000000.snakemake.log", log)
    for job in listed:
        if job not in done and job["rule"] == "generate_shard":  # Snakemake has begun to make them
            mark = base64.urlsafe_b64encode(job["outputs"][0].encode()).decode()
            _write(root / ".snakemake/incomplete" / mark, "")
    _submit(root, [job for job in listed if job not in done and job["rule"] == "generate_shard"], jobs)
    for run in range(RUNS):
        rows = [
            {"iteration": i + 1, "reward_mean": i / 100, "seconds": 200.0, "images_per_s": 1.3,
             "memory_gb_update": 60.0, "kl_base": 0.01, "diversity": 1.0, "mfu": 0.3}
            for i in range(ITERATIONS // 2)
        ]  # fmt: skip
        _write(
            results / f"work/train/r{run}/{ITERATIONS}/0123/live.jsonl", "".join(json.dumps(row) + "\n" for row in rows)
        )
    rows = [
        {"call": call, "judge": "m", "key": "k" * 64, "id": str(call), "attempt": 0, "status": status, "time": 1.0,
         **({"text": "yes " * 50} if status == "ok" else {}), "input_tokens": 900, "output_tokens": 60}
        for call in range(min(CALLS, 10 * jobs)) for status in ("begun", "ok")
    ]  # fmt: skip
    lines = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
    _write(results / "judges/j/20261128T000000-0.jsonl", lines)


def _job(number: int, jobs: int) -> dict:
    if number < RUNS:
        rule, values, output = "train", {"E": "big", "R": f"r{number}", "N": str(ITERATIONS)}, f"runs/r{number}/state"
    elif number % 10 == 9:
        rule, values, output = (
            "score",
            {"E": "big", "B": "b", "R": "base", "N": str(number)},
            f"scores/b/base/{number}.json",
        )
    else:
        values = {"E": "big", "R": "base", "N": "0", "S": "s", "K": str(number)}
        rule, output = "generate_shard", f"images/base/0/s/shards/{number}.jsonl"
    name = ".".join(list(values.values())[1:])
    return {
        "rule": rule, "wildcards": values, "outputs": [f"results/big/{output}"],
        "log": f"results/big/logs/{rule}/{name}.log", "timing": f"results/big/timings/{rule}/{name}.tsv",
        "needed": True, "needs": list(range(max(RUNS, number - 7), number)) if rule == "score" else [],
    }  # fmt: skip


def _list(jobs: list[dict], started: float) -> dict:
    return {
        "schema_version": 1, "started": started, "host": socket.gethostname(), "pid": os.getpid(),
        "pid_started": started_at(os.getpid()),
        "config": "0123456789abcdef.yaml", "prefix": "results/big", "source": None, "command": ["snakemake"],
        "targets": ["all"], "executor": "submitit", "logdir": ".snakemake/submitit", "requeue_limit": 20,
        "rules": {"generate_shard": {"gpu": 1, "resumable": True, "local": False}}, "jobs": jobs,
    }  # fmt: skip


def _config() -> str:
    runs = "".join(f"  r{run}: {{iterations: {ITERATIONS}}}\n" for run in range(RUNS))
    return f"runs:\n{runs}judges:\n  models:\n    j: {{model: m}}\n"


def _submit(root: Path, jobs: list[dict], total: int) -> None:
    """The executor's ledger, files of the jobs that run, and a queue for the stand-in squeue to print."""
    logdir, events, queue = root / ".snakemake/submitit", [], []
    for first in range(0, len(jobs), ARRAY):
        array, token, slurm_id = jobs[first : first + ARRAY], f"t{first}", str(1000 + first)
        folder = logdir / "generate_shard" / token
        names = [".".join(["pe", job["rule"], *job["wildcards"].values()]) for job in array]
        entries = [{"key": name, "fingerprint": "", "request": "", "name": name} for name in names]
        events += [
            {"event": "intent", "time": time.time(), "token": token, "folder": str(folder), "resubmissions": 0,
             "entries": entries},
            {"event": "submitted", "token": token, "slurm_id": slurm_id},
        ]  # fmt: skip
        for number, name in enumerate(names):
            running = number % 10 == 0
            state = "RUNNING|None|2026-11-28T10:00:00|10:00" if running else "PENDING|Priority|N/A|0:00"
            node = f"n{number % 40}" if running else ""
            queue.append(f"{slurm_id}_{number}|{state}|4:00:00|{node}|{name}|{folder}/submission.sh")
            if running:
                _write(folder / f"{slurm_id}_{number}.started", f"{node}\n0\n")
                _write(root / array[number]["log"], "generate s base 0 shard 1: 10/40 images, 0.5/s, 60 s left\n")
    _write(logdir / "ledger.jsonl", "".join(json.dumps(event) + "\n" for event in events))
    other = "RUNNING|None|N/A|1:00|4:00:00|n1|other|/elsewhere/job.sh"
    queue += [f"{number}|{other}" for number in range(total - len(queue))]
    _write(root / "queue.txt", "\n".join(queue) + "\n")
    for name, script in (("squeue", f"cat {root}/queue.txt"), ("sacct", "true")):
        stand_in = _write(
            root / "bin" / name, f"#!/bin/sh\n# A stand-in: prints a file.\necho {name} >> {root}/calls.txt\n{script}\n"
        )
        stand_in.chmod(0o755)


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def measure(root: Path, looks: int) -> list[tuple[float, float]]:
    """Wall and CPU seconds of each look."""
    environment = os.environ | {"PATH": f"{root / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    found = []
    for _ in range(looks):
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, "-m", "promptecho", "status", "results/big"]
        told = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True).stdout
        wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append((wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    print(told)
    return found


def main() -> None:
    """Make the folder, look, and print the times."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--looks", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        make(root, asked.jobs)
        lines = len((root / "queue.txt").read_text().splitlines())
        times = measure(root, asked.looks)
        calls = (root / "calls.txt").read_text().split()
    print(f"{asked.jobs} jobs, {lines} lines of squeue, {asked.looks} looks; calls: squeue {calls.count('squeue')}, "
          f"sacct {calls.count('sacct')}")  # fmt: skip
    for name, values in zip(("wall s", "CPU s"), zip(*times, strict=True), strict=True):
        print(f"{name}: median {statistics.median(values):.2f} ({min(values):.2f} - {max(values):.2f})")


if __name__ == "__main__":
    main()
