"""`promptecho browse`: a page for each benchmark to look through its results prompt by prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command()(browse)


def browse(
    results: Annotated[Path, typer.Argument(help="Folder of a scored experiment, results/E.")],
    benchmark: Annotated[
        list[str] | None, typer.Option(help="A benchmark that has scores; several may be given. Default: all of them.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write the pages to, BENCHMARK.html. Default: results/E/browse.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Experiment file or resolved configuration. Default: that of the newest scores."),
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(help="Show this run beside the base model; several may be given. Default: all runs."),
    ] = None,
    max_columns: Annotated[int, typer.Option(min=2, help="Most checkpoints; of more so many are chosen, evenly.")] = 6,
    max_mb: Annotated[
        float, typer.Option(min=0.1, help="Largest size of a page in millions of bytes; images are scaled down to fit.")
    ] = 30.0,
    threads: Annotated[int, typer.Option(min=1, help="Images that are read at the same time.")] = 1,
) -> None:
    """Write pages to look through results: each prompt's images at every checkpoint, and why they were judged so.

    A page opens from disk in any browser: no server, no network.
    """
    from promptecho.browse.page import write_browser
    from promptecho.browse.sources import benchmarks_in, configuration_of
    from promptecho.commands.files import given_files
    from promptecho.config import load_experiment

    (folder,) = given_files("RESULTS", [results])
    names = benchmark or benchmarks_in(folder)
    experiment = load_experiment(config or configuration_of(folder))
    for name in names:
        path = (out or folder / "browse") / f"{name}.html"
        size = write_browser(
            folder, name, path, experiment, runs=run or (), most=max_columns, max_mb=max_mb, threads=threads
        )
        typer.echo(f"{path} ({size / 1e6:.1f} MB)")
