"""`promptecho shapes train-t2v` and `train-video-vlm`: the trainings of the models of moving shapes."""

from __future__ import annotations

from pathlib import Path

import typer

from promptecho.commands.options import THREADS, use_threads

OUT = typer.Option(..., "--out", help="Folder to write the model to.")
LOG = typer.Option(..., "--log", help="JSON Lines file for the losses.")
SEED = typer.Option(0, "--seed", help="Seed of everything that is drawn.")


def train_t2v(
    out: Path = OUT,
    log: Path = LOG,
    init: str | None = typer.Option(
        None, "--init", help="Folder that this command wrote, to go on from. Default: none, from scratch."
    ),
    steps: int = typer.Option(3000, "--steps", min=1, help="Optimizer steps; the learning rate ends at zero."),
    batch_size: int = typer.Option(32, "--batch-size", min=1, help="Videos in a step."),
    pool: int = typer.Option(8192, "--pool", min=1, help="Videos that are drawn, and seen again and again."),
    seed: int = SEED,
    threads: int | None = THREADS,
) -> None:
    """Train the text-to-video model of moving shapes."""
    from promptecho.config.families import family_named, misfit
    from promptecho.errors import ModelError
    from promptecho.models.locate import check_pipeline_path

    start = None if init is None else Path(check_pipeline_path(init))
    if start is not None and (problem := misfit(family_named("wan"), start)):
        raise ModelError(f"--init {init}: {problem}")
    from promptecho.moving.train_t2v import train_t2v as train

    use_threads(threads)
    train(out, log, init=start, steps=steps, batch_size=batch_size, pool=pool, seed=seed)


def train_video_vlm(
    out: Path = OUT,
    log: Path = LOG,
    init: str = typer.Option(
        "shapes-third", "--init", help="VLM to begin with: shapes-third, or a folder that this command wrote."
    ),
    steps: int = typer.Option(600, "--steps", min=1, help="Optimizer steps; the learning rate ends at zero."),
    batch_size: int = typer.Option(32, "--batch-size", min=1, help="Videos in a step."),
    pool: int = typer.Option(3072, "--pool", min=1, help="Videos that are drawn, and seen again and again."),
    seed: int = SEED,
    threads: int | None = THREADS,
) -> None:
    """Train the vision-language model that reads videos of moving shapes."""
    from promptecho.models.locate import check_model_path
    from promptecho.shipped import model_path

    init = check_model_path(model_path(init, "vlm"))
    from promptecho.moving.train_vlm import train_vlm
    from promptecho.vlm.packed import NAME

    use_threads(threads)
    train_vlm(out, log, init=init, attention=NAME, steps=steps, batch_size=batch_size, pool=pool, seed=seed)
