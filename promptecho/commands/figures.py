"""`promptecho figures`: learning curves and sample grids from finished work, without model or GPU."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Annotated

import typer

from promptecho.commands.files import given_files


def register(app: typer.Typer) -> None:
    figures = typer.Typer(help="Draw learning curves and grids of samples from finished results.")
    figures.command("curves")(curves)
    figures.command("samples")(samples)
    app.add_typer(figures, name="figures", no_args_is_help=True)


def curves(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Folder of an experiment, results/E; or its score files (scores/B/R/N.json) and metrics "
            "(runs/R/N/metrics.jsonl)."
        ),
    ],
    benchmark: Annotated[
        str, typer.Option(help="Benchmark whose scores are drawn: a key of the experiment's `benchmarks`.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write curves_BENCHMARK.png, .pdf, .json and .html to.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print what was drawn as JSON.")] = False,
) -> None:
    """Draw learning curves: score with interval, reward, KL and diversity over the iterations, for all runs."""
    from promptecho.figures.curves import curve_data, write_curves
    from promptecho.figures.sources import read_curve_sources

    data = curve_data(*read_curve_sources(given_files("SOURCES", sources), benchmark))
    paths = write_curves(data, out)
    if as_json:
        typer.echo(json.dumps(data | {"files": [str(path) for path in paths]}, indent=2))
    else:
        for path in paths:
            typer.echo(str(path))


def samples(
    images: Annotated[
        list[Path],
        typer.Argument(help="Image folders, results/E/images/R/N/SET: one column for each; the base model's first."),
    ],
    out: Annotated[Path, typer.Option(help="File to write, .png or .pdf; beside a .png its .html page.")],
    scores: Annotated[
        Path | None,
        typer.Option(
            help="Folder of scores, results/E/scores/B: right images get a green frame, wrong ones a red "
            "one. Default: no frames."
        ),
    ] = None,
    prompts: Annotated[
        int, typer.Option(min=1, help="Number of rows; their prompts are spread evenly over the image set.")
    ] = 8,
    image_index: Annotated[int, typer.Option(min=0, help="Which image of each prompt, from 0.")] = 0,
    max_columns: Annotated[
        int, typer.Option(min=2, help="Most columns; of more image folders so many are chosen, evenly.")
    ] = 8,
) -> None:
    """Draw a grid of images: the same prompts and noise at every checkpoint, with the score of each image."""
    from promptecho.benchmarks.packing import unpacked
    from promptecho.errors import ConfigError
    from promptecho.figures.page import write_page
    from promptecho.figures.samples import choose, thin, write_rows
    from promptecho.figures.sources import read_columns

    if out.suffix not in (".png", ".pdf"):
        raise ConfigError(f"--out {out}: must end in .png or .pdf")
    with contextlib.ExitStack() as stack:
        folders = [stack.enter_context(unpacked(folder)) for folder in given_files("IMAGES", images)]
        columns = thin(read_columns(folders, scores), max_columns)
        write_rows(columns, choose(columns, prompts, image_index), out)
    for path in [out] if out.suffix == ".pdf" else [out, write_page(out)]:
        typer.echo(str(path))
