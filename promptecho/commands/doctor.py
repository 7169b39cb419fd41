"""`promptecho doctor`: what would stop an experiment, before anything is submitted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(
    config: Annotated[Path, typer.Option(help="Experiment file or resolved configuration.")],
    profile: Annotated[
        Path | None,
        typer.Option(help="Snakemake's profile, such as profiles/slurm. Default: none; jobs then run on this machine."),
    ] = None,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Submit one short job to each partition of the profile, and tell what nodes see."),
    ] = False,
    probe_minutes: Annotated[
        float, typer.Option(min=0.1, help="How long probes are waited for; then they are cancelled.")
    ] = 10.0,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Run this check only; repeat the option for several. Default: all, and the totals."),
    ] = None,
    gpu: Annotated[
        str, typer.Option(help="Kind of GPU for the GPU-hours: h100, h200, h20, a100-80, a100-40, l40s, b200.")
    ] = "h100",
    totals: Annotated[
        bool,
        typer.Option(
            "--totals/--no-totals",
            help="Estimate GPU-hours, calls of judges and room on the disk; takes a minute.",
        ),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """List everything that would stop an experiment: what it is, when it would strike, and the fix.

    It changes nothing, and without --probe it starts no job. Type it where you start Snakemake. Exit code 1 if there is
    a problem.
    """
    from promptecho.doctor.preflight import make_preflight
    from promptecho.doctor.report import diagnose
    from promptecho.doctor.show import show
    from promptecho.doctor.totals import make_totals

    preflight = make_preflight(config, profile)
    wanted = not only or {"room", "budgets"} & set(only)
    takes = make_totals(preflight, gpu) if totals and wanted else None
    found = diagnose(preflight, takes, probe_minutes if probe else None, only)
    if as_json:
        typer.echo(json.dumps(found.facts(), indent=2))
    else:
        show(found, takes)
    if found.of("problem"):
        raise typer.Exit(1)
