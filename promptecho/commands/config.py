"""`promptecho config`: check and show configurations, and write the documents made from the models."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    config = typer.Typer(no_args_is_help=True, help="Experiment files: check, show, and write new ones.")
    config.command()(check)
    config.command()(show)
    config.command()(new)
    config.command()(docs)
    app.add_typer(config, name="config")


def check(files: list[Path] = typer.Argument(..., help="Experiment files.")) -> None:
    """Check experiment files: every problem at once, with the path of its key and what was meant."""
    from promptecho.config import load_experiment, run_rewards, run_training
    from promptecho.config.extends import read_experiment
    from promptecho.config.guards import unscored_sets, unwatched_runs
    from promptecho.config.image_sizes import bucket_lists
    from promptecho.config.resolve import as_written
    from promptecho.config.rewards import unequal_sizes
    from promptecho.config.scorers import unproved_backends
    from promptecho.doctor.image_sizes import unsized_prompts
    from promptecho.doctor.initial_adapters import initial_misfits
    from promptecho.doctor.trackers import tracker_troubles
    from promptecho.errors import ConfigError

    problems = []
    for file in files:
        try:
            if not re.fullmatch("[0-9a-f]{16}", file.stem):  # results/E/config/DIGEST.yaml holds every key
                as_written(read_experiment(file), str(file))
            experiment = load_experiment(file)
            typer.echo(f"{file}: valid")
            for text in bucket_lists(experiment.runs, experiment.models.t2i):
                typer.echo(f"{file}: {text}")
            problems += [f"{file}: {one}" for one in unsized_prompts(experiment)]
            misfits = initial_misfits(experiment).items()
            problems += [f"{file}: runs.{run}: {told}" for run, told in misfits if told]
            for run in experiment.runs:
                if text := unequal_sizes(run_rewards(experiment, run), run_training(experiment, run).advantage.scale):
                    typer.echo(f"{file}: warning: runs.{run}: {text}", err=True)
            for name, one in unproved_backends(experiment.benchmarks).items():
                told = f"benchmarks.{name}.backend: {one.name}: {one.unproved}; {one.instead}"
                typer.echo(f"{file}: warning: {told}", err=True)
            if text := unwatched_runs(experiment):
                typer.echo(f"{file}: warning: {text}", err=True)
            for text in unscored_sets(experiment):
                typer.echo(f"{file}: warning: {text}", err=True)
            for text in tracker_troubles(experiment):
                typer.echo(f"{file}: warning: {text}", err=True)
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


def new(
    name: str = typer.Argument(..., help="Name of the experiment, such as mine: its file is FOLDER/mine.yaml."),
    t2i: str = typer.Option(
        "Tongyi-MAI/Z-Image", help="Text-to-image model to train: folder or hub id of its diffusers pipeline."
    ),
    family: str | None = typer.Option(
        None,
        help="Family of that model, as `promptecho list families` has them. Default: the one that its folder is of; "
        "for a model that is not here, the first of the list.",
    ),
    vlm: str = typer.Option(
        "Qwen/Qwen3-VL-8B-Instruct", help="Vision-language model that writes captions and gives the reward."
    ),
    judge: str = typer.Option(
        "OpenGVLab/InternVL3-8B-hf", help="Vision-language model that judges images; better not that of --vlm."
    ),
    images: str | None = typer.Option(None, help="Folder of images to caption. Needed, except with --prompts."),
    prompts: str | None = typer.Option(None, help="File of prompts instead. Needed, except with --images."),
    heldout: int | None = typer.Option(
        None, min=8, help="Number of captions to keep out of training, for evaluation. Default: 200; with --small 64."
    ),
    small: bool = typer.Option(
        False, "--small", help="Numbers for hours on one GPU of 48 GB in place of the paper's, which took 32 GPUs."
    ),
    folder: Path = typer.Option(Path("config/experiments"), help="Folder of the experiment files."),
) -> None:
    """Write an experiment file for your own models and images, with the numbers of the paper and a word on each."""
    from promptecho.config.new import SMALL, TEMPLATE, new_experiment

    path = new_experiment(
        folder, name, family=family, t2i=t2i, vlm=vlm, judge=judge, images=images, prompts=prompts,
        heldout=heldout or (64 if small else 200), template=SMALL if small else TEMPLATE,
    )  # fmt: skip
    typer.echo(f"{path}: written; read it, then ask what it takes:")
    typer.echo(f"  promptecho models list --config {shlex.quote(str(path))}")
    typer.echo(f"  promptecho doctor --config {shlex.quote(str(path))}")
    gpus = "--gpu l40s" if small else "--gpus-per-node 8 --gpu h100"
    typer.echo(f"  promptecho plan --config {shlex.quote(str(path))} {gpus}")
    typer.echo(f"  snakemake --profile profiles/local --config experiments={name} -n all")


def docs(
    context: typer.Context,
    root: Path = typer.Option(Path("."), help="Folder of the checkout."),
    check_only: bool = typer.Option(False, "--check", help="Write nothing; exit code 1 if a file is not up to date."),
) -> None:
    """Write config/README.md, workflow/schemas/experiment.schema.json and docs/commands.md, after a change of a key or
    of a command."""
    from promptecho.commands.reference import commands_page
    from promptecho.config.docs import generated
    from promptecho.errors import DataError
    from promptecho.files import write_text

    drifted = [
        (path, text)
        for path, text in {**generated(root), root / "docs/commands.md": commands_page(context.obj())}.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    if check_only and drifted:
        raise DataError("\n".join(f"{path}: differs from the code; run `make docs`" for path, _ in drifted))
    for path, text in drifted:
        write_text(path, text)
        typer.echo(f"wrote {path}")
    if not drifted:
        typer.echo("nothing to write: the generated files are up to date")
