"""What checks found about an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from promptecho.doctor.finding import Checked, Finding, PreflightCheck, Severity, unchecked
from promptecho.doctor.preflight import Preflight
from promptecho.errors import PromptEchoError, bug_line


@dataclass(frozen=True)
class Diagnosis:
    """What all checks found about an experiment. As `--json` prints them: `totals` (what it takes in all), `rehearsal`
    (what came of that)."""

    experiment: str
    checks: tuple[Checked, ...]
    totals: Mapping[str, Any] = field(default_factory=dict)
    rehearsal: Mapping[str, Any] = field(default_factory=dict)

    def of(self, severity: Severity) -> list[Finding]:
        """All findings of one severity, in the order of the checks."""
        return [one for check in self.checks for one in check.findings if one.severity == severity]

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "experiment": self.experiment,
            "ready": not self.of("problem"),
            "problems": len(self.of("problem")),
            "warnings": len(self.of("warning")),
            "unchecked": len(self.of("unchecked")),
            "checks": [check.facts() for check in self.checks],
            "totals": dict(self.totals),
            **({"rehearsal": dict(self.rehearsal)} if self.rehearsal else {}),
        }


def run_checks(preflight: Preflight, checks: Mapping[str, PreflightCheck]) -> tuple[Checked, ...]:
    """Run the checks; one that fails itself has checked nothing, and says so."""
    done = []
    for name, check in checks.items():
        found: list[Finding] = []
        try:
            found += check(preflight)
        except PromptEchoError as error:
            found.append(unchecked(f"{name}: {error}", "", "see to this, then look again"))
        except Exception as error:  # a bug of one check must not hide what the others find
            found.append(unchecked(f"{name}: {bug_line(error)}", "", "see to this, then look again"))
        done.append(Checked(name, tuple(found)))
    return tuple(done)
