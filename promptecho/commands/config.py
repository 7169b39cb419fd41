"""`promptecho config`: check and show configurations, and write the documents made from the models."""

from __future__ import annotations

import json
import re
from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    config = typer.Typer(no_args_is_help=True, help="Check and show experiment files.")
    config.command()(check)
    config.command()(show)
    config.command()(docs)
    app.add_typer(config, name="config")


def check(files: list[Path] = typer.Argument(..., help="Experiment files.")) -> None:
    """Check experiment files: every problem at once, with the path of its key and what was meant."""
    from promptecho.config import load_experiment, read_yaml, run_rewards, run_training
    from promptecho.config.resolve import as_written
    from promptecho.config.rewards import unequal_sizes
    from promptecho.errors import ConfigError

    problems = []
    for file in files:
        try:
            if not re.fullmatch("[0-9a-f]{16}", file.stem):  # results/E/config/DIGEST.yaml holds every key
                as_written(read_yaml(file), str(file))
            experiment = load_experiment(file)
            typer.echo(f"{file}: valid")
            for run in experiment.runs:
                if text := unequal_sizes(
                    run_rewards(experiment, run), run_training(experiment, run).advantage.scale
                ):
                    typer.echo(f"{file}: warning: runs.{run}: {text}", err=True)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))


def show(
    file: Path = typer.Argument(..., help="Experiment file."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON instead of YAML."),
) -> None:
    """Print an experiment with all its defaults, and with everything that each run inherits."""
    from promptecho.config import dump_yaml, load_experiment

    config = load_experiment(file)
    typer.echo(json.dumps(config.model_dump(mode="json"), indent=2) if as_json else dump_yaml(config), nl=as_json)


def docs(
    root: Path = typer.Option(Path("."), help="Folder of the checkout."),
    check_only: bool = typer.Option(False, "--check", help="Write nothing; exit code 1 if a file is not up to date."),
) -> None:
    """Write config/README.md and workflow/schemas/experiment.schema.json, after a change of promptecho/config."""
    from promptecho.config.docs import generated
    from promptecho.errors import DataError
    from promptecho.files import write_text

    drifted = [
        (path, text)
        for path, text in generated(root).items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    if check_only and drifted:
        raise DataError("\n".join(f"{path}: differs from the models; run `make docs`" for path, _ in drifted))
    for path, text in drifted:
        write_text(path, text)
        typer.echo(f"wrote {path}")
    if not drifted:
        typer.echo("nothing to write: the generated files are up to date")
