"""What a check of the preflight finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from promptecho.doctor.preflight import Preflight

# problem: a job would stop; warning: results or people may come to harm; unchecked: nobody could look; fine: looked at.
Severity = Literal["problem", "warning", "unchecked", "fine"]


@dataclass(frozen=True)
class Finding:
    """One thing that a check has found.

    `what` names the culprit (file, key, prompt id, host), `when` the stage or job that it would strike, `fix` what to
    do, in one line. Of what is `fine`, `what` says what was looked at, and the others are empty.
    """

    severity: Severity
    what: str
    when: str = ""
    fix: str = ""

    @property
    def line(self) -> str:
        """All of it in one line."""
        return "; ".join(part for part in (self.what, self.fix) if part) + (f" [{self.when}]" if self.when else "")


PreflightCheck = Callable[[Preflight], Iterable[Finding]]


@dataclass(frozen=True)
class Checked:
    """A check by name, and what it found."""

    name: str
    findings: tuple[Finding, ...]

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {"check": self.name, "findings": [asdict(one) for one in self.findings]}


def problem(what: str, when: str, fix: str) -> Finding:
    """A job would stop."""
    return Finding("problem", what, when, fix)


def warning(what: str, when: str, fix: str) -> Finding:
    """Nothing stops, but results or people may come to harm."""
    return Finding("warning", what, when, fix)


def unchecked(what: str, when: str, fix: str) -> Finding:
    """Nobody could look here, which is no pass; `fix` says how it can be looked at."""
    return Finding("unchecked", what, when, fix)


def fine(what: str) -> Finding:
    """It was looked at, and nothing is wrong."""
    return Finding("fine", what)
