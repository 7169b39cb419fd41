"""Where the demo's CPU seconds go, beside the demo of an earlier checkout.

    git worktree add /tmp/before v0.1.0
    python perf/demo.py --before /tmp/before --rounds 1

Runs the workflow of `make demo` in two new folders, from captions to tables: all of it, as a user's first demo. The
order alternates; with `--at-once` both run side by side, each with half of the cores, so that other work on the machine
disturbs both alike. CPU seconds are those of Snakemake and all its jobs, each job's as the system counted them when it
ended (perf/job_usage.py); jobs' timings lack the last seconds of long jobs and most of short ones.
Without `--before` only this checkout's demo runs. What each has gained is printed beside what it cost.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from job_usage import tell_usage, used_by_rule
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent


def demo(checkout: Path, folder: Path, cores: int) -> dict[str, Any]:
    """The demo of `checkout` in the new `folder`; its log is folder/log.txt."""
    started = time.monotonic()
    checkout, folder = checkout.resolve(), folder.resolve()
    folder.mkdir()
    shutil.copytree(checkout / "config", folder / "config")
    staged = "rule base:" in (checkout / "workflow/rules/score.smk").read_text()
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", checkout / "Snakefile", "--directory", folder,
        "--profile", checkout / "profiles/local", "--cores", cores, "--config", "experiments=shapes", "--",
    ]  # fmt: skip
    line = " && ".join(" ".join(map(str, [*command, target])) for target in (["base", "all"] if staged else ["all"]))
    plugin = checkout / "plugins/snakemake-executor-plugin-submitit"
    environ = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environ |= {
        "PYTHONPATH": f"{checkout}:{plugin}", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    environ = tell_usage(folder / "usage", environ)
    with (folder / "log.txt").open("w") as log:
        # Python looks for modules where it is started first: there the other checkout's must not lie.
        process = subprocess.Popen(["bash", "-c", line], env=environ, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{folder}/log.txt: the demo ended with exit code {process.returncode}")
    rules, cpu_s = used_by_rule(folder / "usage"), usage.ru_utime + usage.ru_stime
    rules["Snakemake itself"] = (2 if staged else 1, cpu_s - sum(seconds for _, seconds in rules.values()))
    return {
        "seconds": time.monotonic() - started, "cpu_s": cpu_s, "rules": rules, "gained": gained(folder),
    }  # fmt: skip


def gained(folder: Path) -> Any:
    """What `promptecho show` says was gained on held-out captions."""
    command = [sys.executable, "-m", "promptecho", "show", folder / "results/shapes", "--table", "heldout", "--json"]
    return json.loads(subprocess.run(command, capture_output=True, check=True, cwd=ROOT).stdout)


def report(found: dict[str, list[dict[str, Any]]]) -> None:
    """One column for each side: medians of CPU seconds by rule, of all, and of the clock."""
    table = Table(title=f"The demo, CPU s; n = {len(next(iter(found.values())))}, median (range)")
    table.add_column("")
    for side in found:
        table.add_column(side, justify="right")
    for rule in dict.fromkeys(rule for rows in found.values() for row in rows for rule in row["rules"]):
        cells = []
        for rows in found.values():
            values = [row["rules"].get(rule, (0, 0.0)) for row in rows]
            cells.append(f"{statistics.median(cpu for _, cpu in values):.0f} in {values[0][0]} jobs")
        table.add_row(rule, *cells)
    for label, key in (("all, Snakemake included", "cpu_s"), ("seconds from start to end", "seconds")):
        cells = []
        for rows in found.values():
            values = [row[key] for row in rows]
            cells.append(f"{statistics.median(values):.0f} ({min(values):.0f} - {max(values):.0f})")
        table.add_row(label, *cells)
    Console().print(table)
    for side, rows in found.items():
        for row in rows:
            print(f"{side}: {json.dumps(row['gained'])}")
    if len(found) == 2:
        ratios = [now["cpu_s"] / before["cpu_s"] for before, now in zip(*found.values(), strict=True)]
        print(f"CPU seconds, now / before: {statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--before", type=Path, help="An earlier checkout.")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)), help="Cores that a demo uses.")
    parser.add_argument("--at-once", action="store_true", help="Both at the same time, each on half of the cores.")
    parser.add_argument("--folder", type=Path, help="Keep the demos in this new folder.")
    given = parser.parse_args()
    sides = ({"before": given.before.resolve()} if given.before else {}) | {"now": ROOT}
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as temporary:
        work = given.folder or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        for number in range(given.rounds):
            order = list(sides) if number % 2 == 0 else list(reversed(sides))
            cores = max(given.cores // 2, 1) if given.at_once else given.cores
            folders = {side: work / f"{side}{number}" for side in sides}
            with ThreadPoolExecutor(len(sides) if given.at_once else 1) as pool:
                ended = {side: pool.submit(demo, sides[side], folders[side], cores) for side in order}
                for side in order:
                    found[side].append(ended[side].result())
    report(found)


if __name__ == "__main__":
    main()
