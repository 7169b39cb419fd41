"""`promptecho generate`: images of one checkpoint on an image set's prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from promptecho.commands.options import DEVICE, THREADS
from promptecho.errors import ConfigError
from promptecho.files import atomic_path
from promptecho.suggest import maybe


def register(app: typer.Typer) -> None:
    app.command("generate")(generate)


def generate(
    config: Path = typer.Option(
        ..., "--config", help="Experiment file or resolved configuration (results/E/config/DIGEST.yaml)."
    ),
    run: str = typer.Option(..., "--run", help="Run: a key of `runs`, or base for the untrained model."),
    step: int = typer.Option(..., "--step", min=0, help="Checkpoint of the run, in iterations; 0 for base."),
    image_set: list[str] = typer.Option(..., "--image-set", help="Image set: a key of `image_sets`."),
    prompts: list[Path] = typer.Option(
        ..., "--prompts", help="Prompt file of the image set (metadata.jsonl in results/E/prompts/SET)."
    ),
    out: list[Path] = typer.Option(
        ..., "--out", help="Folder to write images to; in the workflow results/E/images/R/N/SET."
    ),
    work: list[Path] = typer.Option(
        ..., "--work", help="Folder for unfinished work; the same command goes on from there after an interruption."
    ),
    adapter: Path | None = typer.Option(
        None, "--adapter", help="Adapter folder of the checkpoint. Default: none, as for base."
    ),
    shard: list[int] = typer.Option([0], "--shard", min=0, help="Number of this shard, from 0."),
    num_shards: list[int] = typer.Option(
        [1], "--num-shards", min=1, help="Number of shards that the images are divided into."
    ),
    images_only: Path | None = typer.Option(
        None,
        "--images-only",
        help="Leave out the files that declare shards complete, and write this one at the end. Default: none, they are "
        "written.",
    ),
    threads: int | None = THREADS,
    device: str = DEVICE,
) -> None:
    """Generate the images of one checkpoint for an image set, or one shard of them.

    A shard is every NUM_SHARDS-th image, beginning with number SHARD. If it is interrupted, the same command goes on
    where it was.

    For several shards of one checkpoint, whose model is loaded once, give --image-set, --prompts, --out, --work,
    --shard and --num-shards once for each of them, in the same order.
    """
    from promptecho.models.locate import job_config

    experiment = job_config(config)
    each: dict[str, Sequence[Any]] = {
        "--prompts": prompts, "--out": out, "--work": work, "--shard": shard, "--num-shards": num_shards,
    }  # fmt: skip
    for option, values in each.items():
        if len(values) != len(image_set):
            raise ConfigError(f"{option}: given {len(values)} times, but --image-set {len(image_set)} times")
    for name in image_set:
        if name not in experiment.image_sets:  # said before torch is imported
            known = experiment.image_sets
            raise ConfigError(f"image_sets.{name}: no such entry (known: {', '.join(known)}){maybe(name, known)}")
    from promptecho.generate import generate_shards, make_images
    from promptecho.generate_job import GenerateJob

    jobs = [
        GenerateJob(
            config=experiment,
            run=run,
            step=step,
            image_set=name,
            prompts=prompt_file,
            shard=number,
            num_shards=count,
            out=folder,
            work=unfinished,
            adapter=adapter,
            device=device,
            threads=threads,
        )
        for name, prompt_file, folder, unfinished, number, count in zip(image_set, *each.values(), strict=True)
    ]
    if images_only is None:
        generate_shards(jobs)
        return
    make_images(jobs)
    with atomic_path(images_only) as temporary:
        temporary.write_text("".join(f"{job.image_set} {job.shard}\n" for job in jobs), encoding="utf-8")
