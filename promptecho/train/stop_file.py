"""A person's request that a run stop: `promptecho stop` leaves the file results/E/work/train/R/stop.

Unlike a scheduler's request, which leaves little time, it lets the iteration under way finish. It holds for the run,
not for one process: neither Slurm's requeue nor Snakemake's retry nor the run's next segment goes on. The next start of
Snakemake takes it back (status/record.py).
"""

from __future__ import annotations

from pathlib import Path

NAME = "stop"


def stop_file_of(results: Path, run: str) -> Path:
    """Where the request lies; `results` is results/E."""
    return results / "work" / "train" / run / NAME


def stop_file_above(work: Path, run: str) -> Path | None:
    """The same from a segment's folder of unfinished work, R/N/DIGEST; None for one that lies elsewhere."""
    folder = work.absolute().parent.parent
    return folder / NAME if folder.name == run else None
