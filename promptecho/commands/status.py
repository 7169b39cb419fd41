"""`promptecho status`: how experiments stand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from promptecho.commands.files import given_files


def register(app: typer.Typer) -> None:
    app.command()(status)


def status(
    results: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of experiments, results/E. Default: all in results."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every 10 s, until all is done or Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON, with every job.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write one HTML page, with every job, instead. Default: none.")
    ] = None,
) -> None:
    """Show on one screen how experiments stand: jobs, Slurm's queue, trainings, judges, what has failed and why.

    It only reads, so anybody who may read the results can look; without Slurm, too.
    """
    from promptecho.errors import ConfigError, PromptEchoError
    from promptecho.status.kinds import ExperimentStatus
    from promptecho.status.report import look
    from promptecho.status.show import page, show

    if sum([watch, as_json, html is not None]) > 1:
        raise ConfigError("status: give one of --watch, --json and --html")
    folders = given_files("RESULTS", results) if results else sorted(p.parent for p in Path("results").glob("*/config"))
    if not folders:
        raise ConfigError(
            "status: no experiment in results; name folders, results/E, or start where you start Snakemake"
        )

    def looks() -> list[ExperimentStatus]:
        """Of all folders; what keeps one from being read stands among the notes of the first that can be."""
        found, problems = [], []
        for folder in folders:
            try:
                found.append(look(folder))
            except PromptEchoError as error:
                problems.append(error)
        if not found:
            raise problems[0]
        found[0].notes += [f"{error}" for error in problems]
        return found

    if as_json:
        typer.echo(json.dumps([one.to_json() for one in looks()], indent=2, allow_nan=False))
    elif html is not None:
        from promptecho.files import write_text

        if len(folders) > 1:
            raise ConfigError("status: --html writes the page of one experiment; name it, results/E")
        write_text(html, page(look(folders[0])))
        typer.echo(f"page in {html}")
    else:
        show(looks, watch=watch)
