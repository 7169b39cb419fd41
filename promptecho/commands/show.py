"""`promptecho show`: finished tables in the terminal, what was gained, and where to look next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from promptecho.commands.files import given_files


def register(app: typer.Typer) -> None:
    app.command()(show)


def show(
    sources: Annotated[
        list[Path],
        typer.Argument(help="Folders of experiments, results/E; or tables, NAME.json of `promptecho tables`."),
    ],
    table: Annotated[
        list[str] | None,
        typer.Option(help="A table of the folders by its name; several may be given. Default: all of them."),
    ] = None,
    notes: Annotated[
        bool, typer.Option("--notes/--no-notes", help="Print the notes below the tables: rules, methods, counts.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was gained as JSON, and no tables.")] = False,
) -> None:
    """Show finished tables in the terminal, what was gained, and where to look next."""
    from promptecho.tables.show import find_tables, print_results, read_table, to_json

    given = given_files("SOURCES", sources)
    tables = [read_table(path) for path in find_tables(given, table or [])]
    if as_json:
        typer.echo(to_json(tables))
    else:
        print_results(tables, [source for source in given if source.is_dir()], notes)
