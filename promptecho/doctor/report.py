"""All checks of the preflight, one after the other. Read this first.

A check (`finding.py`) is a function of a `Preflight` that yields findings; each has a file of its own. `short.py` is
what a dry run of Snakemake says of them, `show.py` prints the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from promptecho.doctor.cluster import cluster
from promptecho.doctor.finding import Checked, Finding, PreflightCheck, Severity, unchecked
from promptecho.doctor.images import images_readable, images_there
from promptecho.doctor.judges import judge_keys, judges_answer
from promptecho.doctor.models import models
from promptecho.doctor.packages import packages
from promptecho.doctor.places import clock, results_writable, room, shared_folders
from promptecho.doctor.preflight import Preflight
from promptecho.doctor.texts import texts
from promptecho.doctor.totals import Totals, budgets
from promptecho.errors import PromptEchoError

CHECKS: dict[str, PreflightCheck] = {
    "images": images_there,
    "images, read": images_readable,
    "models": models,
    "packages": packages,
    "judges' keys": judge_keys,
    "judges' endpoints": judges_answer,
    "prompts": texts,
    "folders": results_writable,
    "shared folders": shared_folders,
    "clock": clock,
    "partitions": cluster,
}


@dataclass(frozen=True)
class Diagnosis:
    """What all checks found about an experiment."""

    experiment: str
    checks: tuple[Checked, ...]
    totals: Totals | None = None

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
            "totals": self.totals.facts() if self.totals else None,
        }


def diagnose(
    preflight: Preflight, checks: Mapping[str, PreflightCheck] = CHECKS, totals: Totals | None = None
) -> Diagnosis:
    """Run the checks, with `totals` those of what is needed in all, too. A check that fails itself has checked nothing,
    and says so."""
    if totals is not None:
        checks = {**checks, "room": partial(room, totals=totals), "budgets": partial(budgets, totals=totals)}
    done = []
    for name, check in checks.items():
        found: list[Finding] = []
        try:
            found += check(preflight)
        except PromptEchoError as error:
            found.append(unchecked(f"{name}: {error}", "", "see to this, then look again"))
        done.append(Checked(name, tuple(found)))
    return Diagnosis(preflight.config.experiment, tuple(done), totals)
