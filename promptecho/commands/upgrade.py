"""`promptecho upgrade`: what this version would make again of finished results, why, and what it costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command()(upgrade)


def upgrade(
    results: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of experiments, results/E. Default: the experiments of config/config.yaml."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Only list. So it is without this option, too: what is to be made again, Snakemake makes; the last "
            "line is its command.",
        ),
    ] = False,
    profile: Annotated[
        str, typer.Option(help="Snakemake's profile, which also says how many GPUs a job takes.")
    ] = "profiles/local",
    settings: Annotated[
        str, typer.Option("--set", help="Settings as Snakemake's `--config set=` takes them. Default: none.")
    ] = "",
    plan: Annotated[
        Path | None,
        typer.Option(
            help="File with what `promptecho plan --json` printed, for jobs that have never been timed. Default: none."
        ),
    ] = None,
    unpack: Annotated[
        bool,
        typer.Option(
            "--unpack",
            help="Count the calls of judges about packed images, too: each set is unpacked for it in the folder for "
            "temporary files.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """List what this version would make again of finished results, why, and what it costs.

    Reads only: it starts no job, asks no judge, and changes no file. Type it where you start Snakemake.
    """
    from promptecho.errors import DataError
    from promptecho.upgrade.costs import PlanFile
    from promptecho.upgrade.report import make_report
    from promptecho.upgrade.show import lines

    root = Path.cwd()
    names = []
    for folder in results or []:
        if folder.resolve().parent != (root / "results").resolve():
            raise DataError(f"{folder}: not results/E of this folder; start where you start Snakemake")
        names.append(folder.resolve().name)
    report = make_report(root, names, profile, settings or None, PlanFile(plan) if plan else None, unpack)
    typer.echo(json.dumps(report.facts(), indent=2) if as_json else "\n".join(lines(report)))
