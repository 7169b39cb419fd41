"""What Snakemake has measured of each finished job (`benchmark:` of its rule): results/E/timings/RULE/KEY.tsv."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from promptecho.config.reruns import REPLACED

FOLDER = "timings"


@dataclass(frozen=True)
class JobTiming:
    """Of a job's last start. None: the job was too short to be looked at.

    Snakemake looks every 30 s at last, so that of long jobs the end of `cpu_s`, and peaks in between, may be missing.
    """

    seconds: float
    cpu_s: float | None
    peak_mb: float | None


def read_timing(path: Path) -> JobTiming | None:
    """None where the file is not there, or no timing."""
    try:
        head, row, *_ = path.read_text().splitlines()
        told = dict(zip(head.split("\t"), row.split("\t"), strict=False))
        return JobTiming(float(told["s"]), _number(told.get("cpu_time")), _number(told.get("max_rss")))
    except (OSError, ValueError, KeyError):
        return None


def read_timings(results: Path) -> dict[str, list[JobTiming]]:
    """Of all finished jobs in results/E, by rule; without those of trainings that were moved aside."""
    found: dict[str, list[JobTiming]] = defaultdict(list)
    folder = results / FOLDER
    for path in sorted(folder.rglob("*.tsv")):
        if REPLACED not in path.name and (timing := read_timing(path)) is not None:
            found[path.relative_to(folder).with_suffix("").parts[0]].append(timing)
    return found


def _number(text: str | None) -> float | None:
    return None if text is None or text in ("-", "NA") else float(text)
