"""`promptecho tables`: score files -> result tables, in seconds, without model, key or network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

TABLES = ("geneval", "captions")


def register(app: typer.Typer) -> None:
    app.command()(tables)


def tables(
    scores: Annotated[
        list[Path],
        typer.Option(
            help="Score files, or experiment folders results/E. More may follow without repeating the option."
        ),
    ],
    more: Annotated[list[Path] | None, typer.Argument(metavar="[SCORES]...", hidden=True)] = None,
    table: Annotated[str, typer.Option(help=f"Which table, one of: {', '.join(TABLES)}.")] = "geneval",
    out: Annotated[Path | None, typer.Option(help="Folder for NAME.md, .csv, .tex and .json.")] = None,
    benchmark: Annotated[
        str, typer.Option(help="Benchmark key to look for in folders. Default: the table's name.")
    ] = "",
    max_failures: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Refuse files with a larger failed share.")
    ] = 0.01,
    print_it: Annotated[bool, typer.Option("--print", help="Print the table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Make a result table from score files."""
    from promptecho.errors import ConfigError
    from promptecho.tables.captions import captions_table
    from promptecho.tables.collect import find_score_files, read_score_files
    from promptecho.tables.geneval import geneval_table
    from promptecho.tables.table import print_rich, to_json, write

    if table not in TABLES:
        raise ConfigError(f"table {table!r} is unknown; known tables: {', '.join(TABLES)} (--table)")
    if out is None and not print_it and not as_json:
        raise ConfigError("nothing to do: give --out FOLDER, --print or --json")
    benchmark = benchmark or table
    files = read_score_files(find_score_files([*scores, *(more or [])], benchmark), scorer=table)
    make = {"geneval": geneval_table, "captions": captions_table}[table]
    made = make(files, name=benchmark, max_failure_share=max_failures)
    paths = write(made, out) if out else []
    if as_json:
        typer.echo(json.dumps(json.loads(to_json(made)) | {"files": [str(path) for path in paths]}, indent=2))
    elif print_it:
        print_rich(made)
    else:
        for path in paths:
            typer.echo(str(path))
    if not print_it or as_json:
        for warning in made.warnings:
            typer.echo(f"promptecho: WARNING: {warning}", err=True)
