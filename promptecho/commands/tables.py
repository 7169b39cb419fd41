"""`promptecho tables`: score files -> result tables, in seconds, without model, key or network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptecho.commands.files import given_files
from promptecho.commands.options import GuardsConfig, plugins_of

if TYPE_CHECKING:
    from promptecho.config import ExperimentConfig
    from promptecho.tables.table import Table


def register(app: typer.Typer) -> None:
    app.command()(tables)


def tables(
    scores: Annotated[
        list[Path] | None,
        typer.Option(help="The same as an option; several may follow it. Default: none."),
    ] = None,
    more: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[SCORES]...", help="Experiment folders, results/E, or score files."),
    ] = None,
    table: Annotated[
        str,
        typer.Option(
            help="Which table: the name of a benchmark (promptecho list benchmarks). Default: the first of them.",
            show_default=False,
        ),
    ] = "",
    paper: Annotated[
        str,
        typer.Option(
            help="Make tables of the paper instead, with the published numbers beside yours: table1 to "
            "table8, or all. Default: none."
        ),
    ] = "",
    paper_rows: Annotated[
        list[str] | None,
        typer.Option(
            help="Which run is compared with a row of the paper: 'Z-Image + PromptEcho=zimage/promptecho@400'. "
            "Runs NAME-s1, NAME-s2, ... can be given together as NAME; without @400: the last checkpoint. Or a YAML "
            "file of such pairs. Repeat the option for several. Default: rows and runs of the same name."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write NAME.md, .html, .csv, .tex, .json and short/NAME.tex to. Needed, except with --print "
            "or --json."
        ),
    ] = None,
    benchmark: Annotated[
        str, typer.Option(help="Benchmark whose scores are taken: a key of `benchmarks`. Default: the table's name.")
    ] = "",
    guards: Annotated[
        list[Path] | None,
        typer.Option(
            help="Guards' score files, guards/G/SET/R/N.json; repeat the option for several. Default: those that the "
            "experiment folders have of the same images."
        ),
    ] = None,
    max_failures: Annotated[
        list[str] | None,
        typer.Option(
            help="Largest share of failed items that a score file may have; others are refused. BENCHMARK=0.05 or "
            "EXPERIMENT/BENCHMARK=0.05 for one benchmark. Default: 0.01."
        ),
    ] = None,
    mixed_versions: Annotated[
        str, typer.Option(help="warn or refuse where different versions of one judge answered.")
    ] = "warn",
    config: GuardsConfig = None,
    print_it: Annotated[bool, typer.Option("--print", help="Print the table in the terminal.")] = False,
    notes: Annotated[
        bool, typer.Option("--notes/--no-notes", help="With --print: the notes below the table, too.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON; several tables as a list.")] = False,
) -> None:
    """Make a result table from scores, or the tables of the paper with the published numbers beside yours."""
    from promptecho.errors import ConfigError
    from promptecho.tables.table import print_rich, to_json
    from promptecho.tables.write import write

    if paper and (table or benchmark):
        raise ConfigError("--paper makes the paper's tables: leave --table and --benchmark out")
    if guards and paper:
        raise ConfigError("--guards is for --table, the paper's tables have none")
    if paper_rows and not paper:
        raise ConfigError("--paper-rows is for --paper")
    if out is None and not print_it and not as_json:
        raise ConfigError("nothing to do: give --out FOLDER, --print or --json")
    if mixed_versions not in ("warn", "refuse"):
        raise ConfigError(f"--mixed-versions {mixed_versions!r}: warn or refuse")
    sources, shares, strict = given_files("--scores", scores, more), _shares(max_failures), mixed_versions == "refuse"
    with plugins_of(config) as experiment:
        if paper:
            made = _paper(paper, sources, paper_rows or [], shares, strict)
        else:
            made = [_table(table, sources, benchmark, shares, strict, guards, experiment)]
    values = []
    for one in made:
        paths = [str(path) for path in write(one, out)] if out else []
        if as_json:
            values.append(json.loads(to_json(one)) | {"files": paths})
        elif print_it:
            print_rich(one if notes else replace(one, footnotes=[]))
        else:
            typer.echo("\n".join(paths))
        if not print_it or as_json:
            for warning in one.warnings:
                typer.echo(f"promptecho: WARNING: {one.name + ': ' if paper else ''}{warning}", err=True)
    if as_json:
        typer.echo(json.dumps(values if paper == "all" else values[0], indent=2))


def _shares(given: list[str] | None) -> dict[str, float]:
    """--max-failures: name of a benchmark, "" for all others -> share."""
    from promptecho.errors import ConfigError

    found = {}
    for text in given or []:
        name, _, share = text.rpartition("=")
        try:
            found[name] = float(share)
        except ValueError:
            found[name] = -1.0
        if not 0 <= found[name] <= 1:
            raise ConfigError(f"--max-failures {text!r}: expected a share from 0 to 1, or BENCHMARK=SHARE")
    return found


def _table(
    name: str, sources: list[Path], benchmark: str, shares: dict[str, float], one_version: bool,
    guards: list[Path] | None, experiment: ExperimentConfig | None,
) -> Table:  # fmt: skip
    from promptecho.config.benchmarks import BENCHMARKS
    from promptecho.guard_files import find_guard_files, read_guard_files
    from promptecho.tables.collect import find_score_files, read_score_files
    from promptecho.tables.compare import check_versions
    from promptecho.tables.guard_columns import Guards
    from promptecho.tables.kinds import make_table

    name = BENCHMARKS.find(name or BENCHMARKS.names()[0]).thing.name
    benchmark = benchmark or name
    files = read_score_files(find_score_files(sources, benchmark), scorer=name)
    if one_version:
        check_versions(files)
    watching = Guards(read_guard_files(guards) if guards else find_guard_files(sources, benchmark, experiment))
    return make_table(name, files, name=benchmark, max_failure_share=shares, guards=watching)


def _paper(name: str, sources: list[Path], rows: list[str], shares: dict[str, float], one_version: bool) -> list[Table]:
    from promptecho.tables.paper import PaperTables, parse_rows
    from promptecho.tables.published import published
    from promptecho.tables.results import Results

    tables = PaperTables(Results(sources), parse_rows(rows), max_failure_share=shares, one_version=one_version)
    return [tables.table(one) for one in (published().tables if name == "all" else [name])]
