"""The diagnosis on a terminal."""

from __future__ import annotations

from promptecho.doctor.finding import Severity
from promptecho.doctor.report import Diagnosis
from promptecho.errors import counted

TITLES: dict[Severity, str] = {
    "problem": "Problems: a job would stop",
    "warning": "Warnings",
    "unchecked": "Could not be checked, which is no pass",
}


def show(diagnosis: Diagnosis) -> None:
    """Print a table for each severity, what would stop a job first, and at the end what was looked at."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    for severity, title in TITLES.items():
        if not (found := diagnosis.of(severity)):
            continue
        console.print(Text(f"{title} ({len(found)})", style="bold"))
        table = Table.grid(padding=(0, 2))  # boxes and columns would cut long paths into pieces
        for one in found:
            for name, text in (("what", one.what), ("strikes", one.when), ("fix", one.fix)):
                if text:
                    style = "bold" if name == "what" else "dim"
                    table.add_row(Text(f"  {name}", style="dim"), Text(text, overflow="fold", style=style))
            table.add_row()
        console.print(table)
    for check in diagnosis.checks:
        for one in check.findings:
            if one.severity == "fine":
                console.print(Text(f"fine  {check.name}: {one.what}"))
    console.print(Text(summary(diagnosis)))


def summary(diagnosis: Diagnosis) -> str:
    """The last line."""
    parts = [
        counted(len(diagnosis.of("problem")), "problem"),
        counted(len(diagnosis.of("warning")), "warning"),
        f"{len(diagnosis.of('unchecked'))} not checked",
    ]
    verdict = "do not submit it yet" if diagnosis.of("problem") else "nothing that was checked stands in its way"
    return f"{diagnosis.experiment}: {', '.join(parts)}; {verdict}"
