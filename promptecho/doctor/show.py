"""The diagnosis on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from promptecho.doctor.diagnosis import Diagnosis
from promptecho.doctor.finding import Severity
from promptecho.doctor.rehearsal import Rehearsal
from promptecho.doctor.totals import Totals
from promptecho.errors import counted

if TYPE_CHECKING:
    from rich.table import Table

TITLES: dict[Severity, str] = {
    "problem": "Problems: a job would stop",
    "warning": "Warnings",
    "unchecked": "Could not be checked, which is no pass",
}


def show(diagnosis: Diagnosis, totals: Totals | None, rehearsal: Rehearsal | None = None) -> None:
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
    if rehearsal is not None and rehearsal.stages:
        console.print(rehearsal_table(rehearsal))
        for line in rehearsal_lines(rehearsal):
            console.print(Text(line))
    for line in totals_lines(totals) if totals is not None else ():
        console.print(Text(line))
    console.print(Text(summary(diagnosis), style="bold"))


def rehearsal_table(rehearsal: Rehearsal) -> Table:
    """Each stage as it was measured, beside the plan."""
    from rich.table import Table

    title = "Rehearsal: one prompt, two images, one iteration"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("stage", no_wrap=True)
    for name in ("outcome", "s", "work", "plan", "ratio", "GB", "plan", "ratio"):
        table.add_column(name, justify="left" if name == "outcome" else "right")
    for one in rehearsal.stages:
        worked = one.seconds if one.at_work is None else one.at_work
        table.add_row(
            one.name, one.outcome, _figure(one.seconds), _figure(one.at_work), _figure(one.plan_seconds),
            _ratio(worked, one.plan_seconds), _figure(one.memory_gb), _figure(one.plan_gb),
            _ratio(one.memory_gb, one.plan_gb),
        )  # fmt: skip
    return table


def rehearsal_lines(rehearsal: Rehearsal) -> Iterator[str]:
    """What is to be known about the table's figures."""
    yield (
        "s: seconds of whole processes, loading included; work: of training's phases alone, which its ratio takes. "
        "GB: the peak."
    )
    if rehearsal.gpu:
        yield f"plan: of one {rehearsal.gpu}, without loading; of judges, scores and several ranks there is none."
        if not any(one.on_gpu for one in rehearsal.stages):
            yield "No GPU was used: GB are of processes, and the ratios tell nothing of GPUs."


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}" if value < 10 or value > 99_999 else f"{value:.0f}"


def _ratio(found: float | None, planned: float | None) -> str:
    return _figure(found / planned) if found is not None and planned else ""


def totals_lines(totals: Totals) -> Iterator[str]:
    """What the experiment takes in all; every figure is an estimate."""
    hours = ", ".join(f"{name} {_hours(value)}" for name, value in totals.gpu_hours.items())
    if totals.gpu_hours:
        yield f"GPU-hours ({totals.gpu}): {totals.known_gpu_hours:.1f} in all: {hours}"
    if totals.disk:
        parts = ", ".join(f"{name} {size / 1e9:.3g}" for name, size in totals.disk.items())
        yield f"disk, GB: {sum(totals.disk.values()) / 1e9:.3g} in all: {parts}"
    for one in totals.judges:
        where = f"judge {one.judge}, {one.benchmark}, {counted(one.checkpoints, 'checkpoint')}"
        if one.unknown:
            yield f"{where}: not known ({one.unknown})"
            continue
        usd = "no prices in its settings" if one.usd is None else f"at most {one.usd:.2f} USD"
        yield (
            f"{where}: {one.calls} calls, about {(one.input_tokens or 0) / 1e6:.3g} million tokens in and at most "
            f"{(one.output_tokens or 0) / 1e6:.3g} million out, {usd}"
        )


def _hours(value: float | None) -> str:
    return "not known" if value is None else f"{value:.1f}" if value >= 0.05 else "0.0"


def summary(diagnosis: Diagnosis) -> str:
    """The last line."""
    parts = [
        counted(len(diagnosis.of("problem")), "problem"),
        counted(len(diagnosis.of("warning")), "warning"),
        f"{len(diagnosis.of('unchecked'))} not checked",
    ]
    verdict = "do not submit it yet" if diagnosis.of("problem") else "nothing that was checked stands in its way"
    return f"{diagnosis.experiment}: {', '.join(parts)}; {verdict}"
