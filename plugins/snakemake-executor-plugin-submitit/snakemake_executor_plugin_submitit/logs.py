"""What a failed job has left to read: the end of its Slurm log, and of the rule's own logs."""

from __future__ import annotations

import contextlib
import math
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from .identity import single_jobs

LINES = 20
_MOST_LOGS = 6
WIDTH = 500
_READ_BYTES = 65536
_CLOCK_MARGIN_S = 2.0  # file servers may have slightly different clocks

_TIME = re.compile(r"\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}\]")
_HEADER = re.compile(r"(local)?(rule|checkpoint) \S+:")
# What follows may be the command's own, indented.
_HEADER_LINE = re.compile(r"    (input|output|log|jobid|benchmark|reason|wildcards|priority|threads|resources): ")
_ENDED_BY = re.compile(r"(returned non-zero exit status \d+|died with <Signals\.\w+: \d+>)", re.DOTALL)
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_BOILERPLATE = (
    "submitit INFO", "submitit WARNING", "Will exit after finishing currently running jobs", "Elapsed time:",
    "Shutting down, this might take", "Exiting because a job execution failed",
    "Storing output in storage", "WorkflowError:", "At least one job did not complete successfully",
    "Select jobs to execute...", "Finished jobid: ", "Building DAG of jobs...",
)  # fmt: skip
_PAYLOAD = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] \S+: exit code -?\d+ after ")
_LIFE = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] \S+: job \S+ on \S+, restarts: \d+")
_BEGIN = re.compile(r"Execute \d+ jobs\.\.\.")
_FAILED = re.compile(r"RuleException:|Error in (rule|group) \S+:|MissingOutputException in rule .*")
_STEPS = re.compile(r"\d+ of \d+ steps \(\S+%\) done")
# Snakemake says no more of a rule whose Python code leaves in one of these ways.
_INTERRUPTED = "Terminating processes on user request"
_OF_INTERRUPTED = "(Snakemake in the job was interrupted: by a signal, or by sys.exit() in the rule's `run:`)"


def last_lines(job, task) -> list[str]:
    """Of the Slurm log and the rule's own, each under its name."""
    end = tail(task.log, group=job.is_group())
    begun = task.started.stat().st_ctime - _CLOCK_MARGIN_S if task.started.exists() else math.inf
    found = [(str(task.log), end), *rule_logs(job, begun, end)]
    return [line for name, lines in found for line in (f"last lines of {name}:", *(f"  | {one}" for one in lines))]


def tail(log: Path, lines: int = LINES, group: bool = False) -> list[str]:
    """The last lines of a Slurm log, since the last start, without what the Snakemake in the job says of itself.

    It repeats what the one here reports, but for two things, which are kept: the exception of a rule, and what ended
    a command.
    """
    try:
        found = _end_of(log)
    except OSError as error:
        return [f"(no log: {error.strerror})"]
    lives = [number for number, line in enumerate(found) if _LIFE.fullmatch(line)]
    found = found[lives[-1] + 1 :] if lives else found
    # In a group others may have begun after the one that failed.
    failed = next((number for number, line in enumerate(found) if group and _FAILED.fullmatch(line)), len(found))
    starts = [number for number, line in enumerate(found[:failed]) if _BEGIN.fullmatch(line)]
    return _without_snakemake(found[starts[-1] + 1 if starts else 0 :])[-lines:]


def rule_logs(job, not_before: float, shown: list[str], lines: int = LINES) -> list[tuple[str, list[str]]]:
    """Name and last lines of each of the rule's own log files (of a group: of all its rules').

    Left out are those that are empty, not there, folders, or older than the job, and what `shown` has already, as
    after `tee`. Of a large group those of jobs that have not made their outputs are shown, and what was written last.
    """
    found = []
    times = _written(job, not_before)
    unfinished = [path for path in times if path in _unfinished(job)] if len(times) > _MOST_LOGS else []
    chosen = sorted(unfinished or times, key=lambda path: -times[path])[:_MOST_LOGS]
    for path in (path for path in times if path in chosen):
        try:
            end = _end_of(Path(path))[-lines:]
            if _is_no_text(end):
                end = [f"(no text in UTF-8; {Path(path).stat().st_size} bytes)"]
        except OSError as error:
            found.append((path, [f"(can't be read: {error.strerror})"]))
            continue
        if end and "\n".join(end) not in "\n".join(shown):
            found.append((path, end))
    if len(times) > len(chosen):
        found.append((f"{len(times) - len(chosen)} more logs of this group", ["(not shown)"]))
    return found


def _written(job, not_before: float) -> dict[str, float]:
    """The rules' logs that this job has written, in order, and when."""
    found = {}
    for path in dict.fromkeys(str(log) for one in _members(job) for log in one.log):
        with contextlib.suppress(OSError):
            status = os.stat(path)
            if stat.S_ISREG(status.st_mode) and status.st_size and status.st_mtime >= not_before:
                found[path] = status.st_mtime
    return found


def _unfinished(job) -> set[str]:
    """The logs of those jobs of a group that have not made all of their outputs."""
    return {
        str(log) for one in _members(job) if not all(os.path.lexists(str(output)) for output in one.output)
        for log in one.log
    }  # fmt: skip


def all_shown_by_snakemake(job) -> bool:
    """By its --show-failed-logs: it stops at the first that is empty, or not there, or no text."""
    try:
        return all(Path(str(log)).read_text(encoding="utf-8") for one in _members(job) for log in one.log)
    except (OSError, UnicodeDecodeError):
        return False


def _members(job) -> Iterable:
    return sorted(single_jobs(job), key=lambda one: one.rule.name)


def _end_of(path: Path) -> list[str]:
    """Lines as a terminal would show them; the last 64 KB are read."""
    with path.open("rb") as file:
        file.seek(0, 2)
        cut = file.tell() > _READ_BYTES
        file.seek(max(file.tell() - _READ_BYTES, 0))
        text = file.read().decode(errors="replace")
    found = text.split("\n")
    if cut and len(found) > 1:
        found = found[1:]  # the rest of a line
    return _stripped([_as_shown(line) for line in found])


def _is_no_text(lines: list[str]) -> bool:
    text = "".join(lines)
    return text.count("\ufffd") > len(text) / 4


def _as_shown(line: str) -> str:
    """A progress bar writes over itself; colours and similar codes are for terminals."""
    parts = [part for part in line.split("\r") if part]
    line = _CONTROL.sub("", _ESCAPES.sub("", parts[-1] if parts else ""))
    return line if len(line) <= WIDTH else f"{line[:WIDTH]} ... ({len(line)} characters)"


def _stripped(lines: list[str]) -> list[str]:
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    while lines and not lines[0].strip():
        lines = lines[1:]
    return lines


def _without_snakemake(lines: list[str]) -> list[str]:
    kept: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        if _TIME.fullmatch(line):
            kept = _stripped(kept)  # Snakemake writes an empty line before it
            at += 1
        elif _HEADER.fullmatch(line):
            at = _end_of_block(lines, at + 1)
        elif line == "RuleException:":
            end = next((n for n in range(at + 1, len(lines)) if _TIME.fullmatch(lines[n])), len(lines))
            kept += _exception(lines[at + 1 : end])
            at = end
        elif re.fullmatch(r"Error in (rule|group) \S+", line.removesuffix(":")):
            # The command in it may have empty lines.
            at = next((n for n in range(at, len(lines)) if _ends_error(lines[n])), len(lines))
        else:
            if line.startswith(_INTERRUPTED):
                kept.append(_OF_INTERRUPTED)
            elif not line.startswith(_BOILERPLATE) and not any(one.match(line) for one in (_PAYLOAD, _BEGIN, _STEPS)):
                kept.append(line)
            at += 1
    return _stripped(kept)


def _ends_error(line: str) -> bool:
    """In a group other jobs go on after one that has failed."""
    return line.startswith("Shutting down, this") or _TIME.fullmatch(line) is not None


def _end_of_block(lines: list[str], at: int) -> int:
    while at < len(lines) and _HEADER_LINE.match(lines[at]):
        at += 1
    return at


def _exception(block: list[str]) -> list[str]:
    """Of a command that failed the exit code only: the command itself is reported anyway, and may be long."""
    if not block or not block[0].startswith("CalledProcessError in file"):
        return block if len(block) <= LINES else _cut(block)
    ended = _ENDED_BY.search("\n".join(block))
    return [f"(the command {ended[1]})"] if ended else block


def _cut(block: list[str]) -> list[str]:
    """Of a long exception the begin too, which names its kind."""
    left, right = block[:3], block[4 - LINES :]
    return [*left, f"... ({len(block) - len(left) - len(right)} lines)", *right]
