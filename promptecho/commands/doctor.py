"""`promptecho doctor`: what would stop an experiment, before anything is submitted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from promptecho.errors import ConfigError, Interrupted


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
    rehearse: Annotated[
        bool,
        typer.Option(
            "--rehearse",
            help="Run every stage once on the real models: one prompt, two images, in a temporary folder.",
        ),
    ] = False,
    rehearse_minutes: Annotated[
        float, typer.Option(min=0.1, help="How long a command of the rehearsal may take; then it is ended.")
    ] = 30.0,
    paid: Annotated[
        bool,
        typer.Option(
            "--paid",
            help="With --rehearse: ask judges behind endpoints about the images, too, which may cost money. Default: "
            "only the call that costs nothing.",
        ),
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="With --rehearse: keep its folder. Default: only where a stage failed.")
    ] = False,
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

    It changes nothing, and without --probe and --rehearse it starts no job. Type it where you start Snakemake. Exit
    code 1 if there is a problem.
    """
    from promptecho.doctor.preflight import make_preflight
    from promptecho.doctor.rehearsal import rehearse_and_clean
    from promptecho.doctor.rehearsal_job import belongs_to_a_node, rehearse_on_a_node
    from promptecho.doctor.report import CHECKS, diagnose, require_known
    from promptecho.doctor.show import show
    from promptecho.doctor.totals import make_totals
    from promptecho.plan.gpus import find_gpu

    if (paid or keep) and not rehearse:
        raise ConfigError("doctor: --paid and --keep are for --rehearse alone")
    # Before a rehearsal, which may take hours.
    more = [("room", totals), ("budgets", totals), ("nodes", probe), ("rehearsal", rehearse)]
    require_known(only or (), [*CHECKS, *(name for name, there in more if there)])
    find_gpu(gpu)
    preflight = make_preflight(config, profile)
    wanted = not only or {"room", "budgets"} & set(only)
    takes = make_totals(preflight, gpu) if totals and wanted else None
    minutes = probe_minutes if probe else None
    rehearsal = None
    try:
        if rehearse and belongs_to_a_node(preflight):
            words = ["--rehearse-minutes", f"{rehearse_minutes:g}", "--gpu", gpu]
            words += [
                *(["--paid"] if paid else []),
                *(["--keep"] if keep else []),
                *([] if totals else ["--no-totals"]),
            ]
            rehearsal = rehearse_on_a_node(preflight, keep, words)
        elif rehearse:
            plan = gpu if totals else None
            rehearsal = rehearse_and_clean(preflight, keep, paid=paid, minutes=rehearse_minutes, gpu=plan)
    except KeyboardInterrupt:
        raise Interrupted("doctor --rehearse: interrupted; a new rehearsal starts from the beginning") from None
    found = diagnose(preflight, takes, minutes, only, rehearsal)
    if as_json:
        typer.echo(json.dumps(found.facts(), indent=2))
    else:
        show(found, takes, rehearsal)
    if found.of("problem"):
        raise typer.Exit(1)
