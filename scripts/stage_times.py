"""Sum the measured time of each rule: `python scripts/stage_times.py results/shapes`.

Reads the timings that Snakemake writes beside the results; a job that was interrupted counts its last start only.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path


def timings(results: Path) -> dict[str, list[dict[str, str]]]:
    """The measurements of each rule's jobs, in the order in which the rules first ended."""
    files = sorted((results / "timings").rglob("*.tsv"), key=lambda path: path.stat().st_mtime)
    rules: dict[str, list[dict[str, str]]] = {}
    for path in files:
        rule = path.relative_to(results / "timings").with_suffix("").parts[0]
        rules.setdefault(rule, []).extend(csv.DictReader(path.open(), delimiter="\t"))
    return rules


def measured(rows: list[dict[str, str]], column: str) -> list[float]:
    """The values of a column; a job that was too short has none."""
    return [float(row[column]) for row in rows if row[column] not in ("-", "NA")]


def main(results: Path) -> None:
    """Print jobs, wall seconds, CPU seconds and peak memory by rule."""
    print(f"{'rule':<18}{'jobs':>5}{'wall s':>9}{'CPU s':>9}{'peak MB':>9}")
    total = 0.0
    rules = timings(results)
    for rule, rows in rules.items():
        wall = sum(float(row["s"]) for row in rows)
        cpu = sum(measured(rows, "cpu_time"))
        peak = max(measured(rows, "max_rss"), default=float("nan"))
        total += wall
        print(f"{rule:<18}{len(rows):>5}{wall:>9.0f}{cpu:>9.0f}{peak:>9.0f}")
    print(f"{'all':<18}{sum(map(len, rules.values())):>5}{total:>9.0f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
