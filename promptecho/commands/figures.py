"""`promptecho figures`: scores, training curves and sample grids from finished work, without model or GPU; and grids
word by word, for which the VLM reads them (figures_words.py)."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from promptecho.commands.figures_words import words
from promptecho.commands.files import given_files
from promptecho.commands.options import GuardsConfig, ImageIndex, MaxColumns, SamplePrompts, plugins_of
from promptecho.commands.options import PluginsConfig as Config


def register(app: typer.Typer) -> None:
    figures = typer.Typer(help="Draw scores, training curves and grids of samples, 6.9 and 3.3 inches wide.")
    figures.command("curves")(curves)
    figures.command("training")(training)
    figures.command("samples")(samples)
    figures.command("words")(words)
    app.add_typer(figures, name="figures", no_args_is_help=True)


def curves(
    sources: Annotated[
        list[Path], typer.Argument(help="Folder of an experiment, results/E; or its score files (scores/B/R/N.json).")
    ],
    benchmark: Annotated[
        str, typer.Option(help="Benchmark whose scores are drawn: a key of the experiment's `benchmarks`.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder to write curves_BENCHMARK.png, .pdf, .json and .html to, single_column/ has a narrow .pdf."
        ),
    ],
    guards: Annotated[
        list[Path] | None,
        typer.Option(
            help="Guards' score files, guards/G/SET/R/N.json; repeat the option for several. Default: those that the "
            "experiment's folder has of the same images."
        ),
    ] = None,
    config: GuardsConfig = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was drawn as JSON.")] = False,
) -> None:
    """Draw a benchmark's scores with their intervals at the evaluated checkpoints of all runs."""
    from promptecho.figures.curves import curve_data, write_curves
    from promptecho.figures.sources import read_curve_sources
    from promptecho.guard_files import find_guard_files, read_guard_files
    from promptecho.tables.guard_columns import Guards

    with plugins_of(config) as experiment:
        given = given_files("SOURCES", sources)
        watching = Guards(read_guard_files(guards) if guards else find_guard_files(given, benchmark, experiment))
        data = curve_data(read_curve_sources(given, benchmark), watching)
    _tell(data, write_curves(data, out), as_json)


def training(
    sources: Annotated[
        list[Path],
        typer.Argument(help="Folder of an experiment, results/E; or its runs' rows (runs/R/N/metrics.jsonl)."),
    ],
    out: Annotated[
        Path,
        typer.Option(help="Folder to write training.png, .pdf, .json and .html to, and single_column/training.pdf."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print what was drawn as JSON.")] = False,
) -> None:
    """Draw reward, KL and diversity over the iterations of all runs."""
    from promptecho.figures.sources import read_training_sources
    from promptecho.figures.training import training_data, write_training

    data = training_data(*read_training_sources(given_files("SOURCES", sources)))
    _tell(data, write_training(data, out), as_json)


def _tell(data: dict[str, Any], paths: list[Path], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(data | {"files": [str(path) for path in paths]}, indent=2))
    else:
        for path in paths:
            typer.echo(str(path))


def samples(
    images: Annotated[
        list[Path],
        typer.Argument(help="Image folders, results/E/images/R/N/SET, of one image set; the base model's first."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="File to write, NAME.png; beside it NAME.pdf, .json, .html and single_column/NAME.pdf are written."
        ),
    ],
    scores: Annotated[
        Path | None,
        typer.Option(
            help="Folder of scores, results/E/scores/B: frame and mark show the verdicts, and the prompts "
            "are wins, losses and ties of the last images against the first, in their true proportions. Default: none."
        ),
    ] = None,
    prompts: SamplePrompts = 24,
    image_index: ImageIndex = 0,
    max_columns: MaxColumns = 6,
    config: Config = None,
) -> None:
    """Draw a grid of images: the same prompts and noise at every checkpoint, with the score of each image."""
    from promptecho.benchmarks.packing import unpacked
    from promptecho.errors import ConfigError
    from promptecho.figures.draw_samples import write_samples
    from promptecho.figures.samples import choose, thin
    from promptecho.figures.sources import read_columns

    if out.suffix not in (".png", ".pdf"):
        raise ConfigError(f"--out {out}: must end in .png or .pdf")
    with plugins_of(config), contextlib.ExitStack() as stack:
        folders = [stack.enter_context(unpacked(folder)) for folder in given_files("IMAGES", images)]
        columns = thin(read_columns(folders, scores), max_columns)
        paths = write_samples(columns, choose(columns, prompts, image_index), out.with_suffix(""))
    for path in paths:
        typer.echo(str(path))
