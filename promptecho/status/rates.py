"""How fast captioning, generation and judging go: the lines of progress.py at the ends of the jobs' logs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from promptecho.status.failures import last_line

_LINE = re.compile(r"^(?P<what>.+): (?P<done>\d+)/(?P<total>\d+) (?P<unit>\w+), (?P<rate>[\d.e+-]+)/s")


@dataclass(frozen=True)
class JobProgress:
    """Of a job under way: so many of `total` `unit`s are done, `rate` a second since it has begun."""

    done: int
    total: int
    unit: str
    rate: float


def progress_of(log: Path) -> JobProgress | None:
    """What the last line of a log says; None where it says something else."""
    found = _LINE.match(last_line(log))
    return found and JobProgress(int(found["done"]), int(found["total"]), found["unit"], float(found["rate"]))
