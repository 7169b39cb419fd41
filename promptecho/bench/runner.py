"""Steps in turn, each a process of its own with a time limit, within a budget; their rows are kept whatever happens.

A step writes its rows to a JSON Lines file as they come. After every step, and when the whole is broken off, all rows
so far are in the results' file, which is always whole. Nothing here needs more than Python, so that it runs where the
packages of the project do not; a step that needs these then fails by itself, as a row with its reason.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptecho.files import write_json
from promptecho.signal_handlers import handling

ABSENT = 3  # exit code of a step whose settings this checkout does not know
GRACE_S = 10.0  # between SIGTERM and SIGKILL

Row = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One process.

    Args:
        command: to which `--rows FILE` is added.
        least_s: with less time left it is not begun.
        limit_s: it is ended after so long, or when the budget is spent.
        needs: steps without which it can't run.
    """

    name: str
    command: Sequence[str]
    least_s: float
    limit_s: float
    needs: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


def run_steps(
    steps: Sequence[Step], facts: dict[str, Any], out: Path, minutes: float, told: Callable[[str], None] = print
) -> dict[str, Any]:
    """Run `steps` in their order; returns, and leaves in `out`, `facts` with "rows", "seconds" of the whole and
    "step_seconds" of each process.

    A row tells its "step" and either what was measured or why nothing was: "failed" (an error, or out of time),
    "absent" (not in this checkout), "not_run" (no time left, or what it needs failed). Output of the steps is in
    OUT.logs/.
    Ctrl-C, SIGTERM and the end of the terminal (SIGHUP) end the step under way and keep all rows; "interrupted" is then
    true.
    """
    begun = time.monotonic()
    results: dict[str, Any] = {**facts, "minutes": minutes, "rows": [], "step_seconds": {}, "interrupted": False}
    logs = out.with_name(f"{out.name}.logs")
    logs.mkdir(parents=True, exist_ok=True)
    good: set[str] = set()

    def keep(rows: list[Row]) -> None:
        for row in rows:
            results.update(row.pop("facts", {}))
        results["rows"] += [row for row in rows if row.keys() - {"step"}]
        results["seconds"] = round(time.monotonic() - begun, 1)
        write_json(out, results)

    keep([])
    with _ended_by_signals():
        for step in steps:
            left = max(0.0, 60 * minutes - (time.monotonic() - begun))
            if missing := [name for name in step.needs if name not in good]:
                keep([{"step": step.name, "not_run": f"needs the step {', '.join(missing)}"}])
                continue
            if left <= 0 or left < step.least_s:
                takes = f", it takes about {step.least_s:.0f}" if step.least_s else ""
                keep([{"step": step.name, "not_run": f"{left:.0f} s left{takes}"}])
                continue
            told(f"{step.name} ({time.monotonic() - begun:.0f} s of {60 * minutes:.0f})")
            file = logs / f"{step.name.replace(' ', '_').replace('=', '-')}.jsonl"
            file.unlink(missing_ok=True)
            started = time.monotonic()
            try:
                problem = _run(step, file, min(step.limit_s, left))
            except KeyboardInterrupt:
                results["step_seconds"][step.name] = round(time.monotonic() - started, 1)
                keep([*read_rows(file, step.name), {"step": step.name, "failed": "interrupted"}])
                results["interrupted"] = True
                write_json(out, results)
                return results
            results["step_seconds"][step.name] = round(time.monotonic() - started, 1)
            if problem is None:
                good.add(step.name)
            rows = read_rows(file, step.name)
            keep(rows + ([{"step": step.name, **problem}] if problem else []))
            for state, reason in (problem or {}).items():
                told(f"{step.name} {state}: {reason}")
    return results


def read_rows(file: Path, step: str) -> list[Row]:
    """What a step has written; a last line that it was still writing is left out."""
    if not file.is_file():
        return []
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            rows.append({"step": step, **json.loads(line)})
    return rows


def _run(step: Step, rows: Path, limit_s: float) -> Row | None:
    """None where it ended well, else why not."""
    log = rows.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*step.command, "--rows", str(rows)], stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, **step.environment},
        )  # fmt: skip
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return {"failed": f"out of time after {limit_s:.0f} s; {log} has its output"}
        finally:
            _end(process)
    if code == 0:
        return None
    reason = _reason(log)
    if code == ABSENT:
        return {"absent": reason}
    if code < 0:
        reason = (
            f"ended by {signal.Signals(-code).name}; {reason}" if reason else f"ended by {signal.Signals(-code).name}"
        )
    return {"failed": f"{reason or f'exit code {code}'} ({log})"}


def _end(process: subprocess.Popen) -> None:
    """End it with all that it has started. A second Ctrl-C cuts its grace short."""
    try:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
    finally:
        with contextlib.suppress(ProcessLookupError):  # what it has left behind
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _reason(log: Path) -> str:
    """The line of a step's output that says most: of a command of ours, of a shortage of memory, else the last."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    ours = [line.removeprefix("promptecho: ") for line in lines if line.startswith("promptecho: ")]
    shortage = [line for line in lines if "out of memory" in line.lower()]
    return " ".join((ours or shortage or lines or [""])[-1].split())[:300]


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGINT raise KeyboardInterrupt, also where a shell started this in the background; SIGHUP does, but
    where it is ignored, as under nohup."""

    def leave(*_: Any) -> None:
        raise KeyboardInterrupt

    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    with handling(numbers, leave):
        yield


def exit_code(results: dict[str, Any]) -> int:
    """0: every step that was begun ended well; 1: one failed; 130: interrupted."""
    if results["interrupted"]:
        return 130
    return int(any("failed" in row for row in results["rows"]))


def progress(text: str) -> None:
    """Tell it on stderr."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
