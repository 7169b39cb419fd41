"""`promptecho figures`: learning curves and sample grids from finished work, without model or GPU."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    figures = typer.Typer(help="Draw learning curves and sample grids from files that the workflow has made.")
    figures.command("curves")(curves)
    figures.command("samples")(samples)
    app.add_typer(figures, name="figures", no_args_is_help=True)


def curves(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="An experiment's folder results/E; or score files (scores/B/R/N.json) and metrics "
            "(runs/R/N/metrics.jsonl)."
        ),
    ],
    benchmark: Annotated[str, typer.Option(help="Benchmark key: whose scores to draw.")],
    out: Annotated[Path, typer.Option(help="Folder for curves_BENCHMARK.png, .pdf and .json.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print what was drawn as JSON.")] = False,
) -> None:
    """Score with interval, reward, KL and diversity against the iteration, for all runs of an experiment."""
    from promptecho.figures.curves import curve_data, write_curves
    from promptecho.figures.sources import read_curve_sources

    data = curve_data(*read_curve_sources(sources, benchmark))
    paths = write_curves(data, out)
    if as_json:
        typer.echo(json.dumps(data | {"files": [str(path) for path in paths]}, indent=2))
    else:
        for path in paths:
            typer.echo(str(path))


def samples(
    images: Annotated[
        list[Path], typer.Argument(help="Image folders results/E/images/R/N/SET, one column each, base first.")
    ],
    out: Annotated[Path, typer.Option(help="PNG to write.")],
    scores: Annotated[
        Path | None, typer.Option(help="Folder results/E/scores/B: its verdicts frame the images.")
    ] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Rows: prompts evenly spread over the image set.")] = 8,
    image_index: Annotated[int, typer.Option(min=0, help="Which image of each prompt.")] = 0,
    max_columns: Annotated[int, typer.Option(min=2, help="More checkpoints are thinned to so many.")] = 8,
) -> None:
    """The same prompts and noise at every checkpoint, with the benchmark's verdict on each image."""
    from promptecho.benchmarks.packing import unpacked
    from promptecho.errors import ConfigError
    from promptecho.figures.samples import choose, thin, write_rows
    from promptecho.figures.sources import read_columns

    if out.suffix not in (".png", ".pdf"):
        raise ConfigError(f"--out {out}: must end in .png or .pdf")
    with contextlib.ExitStack() as stack:
        folders = [stack.enter_context(unpacked(folder)) for folder in images]
        columns = thin(read_columns(folders, scores), max_columns)
        write_rows(columns, choose(columns, prompts, image_index), out)
    typer.echo(str(out))
