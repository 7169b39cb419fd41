"""Why jobs of the newest start have failed: from Snakemake's log, and the ends of the jobs' own logs.

Snakemake notes a failure nowhere else. Of its log two kinds of lines are read: `Error in rule NAME:` with the line
`    output: ...` below it, and what ended a command, which comes before that.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from promptecho.status.job_list import records_of

_ERROR = re.compile(r"^Error in (?:rule|group) ")
_OUTPUT = re.compile(r"^    output: (.*)$")
_MESSAGE = re.compile(r"^    message: (.*)$")
_STATUS = re.compile(r"(?:returned non-zero exit status (\d+)|died with <Signals\.(SIG\w+): \d+>)")
_INTERRUPTED = "Terminating processes on user request"
_ENDING = b"\nWill exit after finishing currently running jobs"
_BY_REQUEST = {"75", "130", "143", "SIGINT", "SIGTERM"}
_SIGNALS = {"137": "SIGKILL", "139": "SIGSEGV", "134": "SIGABRT", "135": "SIGBUS"}
_END_BYTES, _WIDTH = 16384, 300
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class JobFailure:
    """`interrupted`: it was ended with Snakemake, at somebody's request."""

    reason: str
    interrupted: bool = False


def read_failures(root: Path, started: float) -> dict[str, JobFailure]:
    """By output, of the start at time `started` (seconds since the epoch); {} where its log can't be read."""
    path = _log_of(root, started)
    found: dict[str, JobFailure] = {}
    if path is None:
        return found
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return found
    interrupted = any(line.startswith(_INTERRUPTED) for line in lines)  # a job may end before Snakemake notices
    status, message, inside = "", "", False
    for line in lines:
        if _ERROR.match(line):
            inside, message = True, ""
        elif inside and (told := _MESSAGE.match(line)):
            message = "" if told[1] == "None" else told[1]
        elif inside and (outputs := _OUTPUT.match(line)):
            failure = JobFailure(_words(status) or message, interrupted and status in _BY_REQUEST)
            found |= {output: failure for output in outputs[1].split(", ")}
            inside, status = False, ""
        elif ended := _STATUS.search(line):
            status = ended[1] or ended[2]
    return found


def begins_no_more(root: Path, started: float) -> bool:
    """Whether the start at time `started`, asked to end or after a failure, only waits for the jobs that run."""
    path = _log_of(root, started)
    try:
        return path is not None and _ENDING in path.read_bytes()
    except OSError:
        return False


def _words(status: str) -> str:
    signal = _SIGNALS.get(status) or (status if status.startswith("SIG") else "")
    if signal == "SIGKILL":
        return "was killed (signal 9), by a person or for lack of memory"
    return f"was ended by {signal}" if signal else f"exit code {status}" if status else ""


def _log_of(root: Path, started: float) -> Path | None:
    """Snakemake's log of a start: it has the time at which the process began in its name, before the plan stood."""
    best: tuple[float, Path] | None = None
    for path in (records_of(root) / "log").glob("*.snakemake.log"):
        with contextlib.suppress(ValueError, OSError):
            began = datetime.strptime(path.name.partition(".snakemake")[0], "%Y-%m-%dT%H%M%S.%f").timestamp()
            if began <= started <= path.stat().st_mtime + 1 and (best is None or began > best[0]):
                best = began, path
    return best and best[1]


def last_line(path: Path) -> str:
    """The last line that says something of a log; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, 2) - _END_BYTES, 0))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    for line in reversed(text.split("\n")):
        shown = _ESCAPES.sub("", line.split("\r")[-1]).strip()
        if shown:
            return shown if len(shown) <= _WIDTH else f"{shown[:_WIDTH]} ..."
    return ""
