"""`promptecho generate`: images of one checkpoint on an image set's prompts."""

from __future__ import annotations

from pathlib import Path

import typer

from promptecho.commands.options import DEVICE, THREADS
from promptecho.errors import ConfigError
from promptecho.suggest import maybe


def register(app: typer.Typer) -> None:
    app.command("generate")(generate)


def generate(
    config: Path = typer.Option(
        ..., "--config", help="Experiment file or resolved configuration (results/E/config/DIGEST.yaml)."
    ),
    run: str = typer.Option(..., "--run", help="Run: a key of `runs`, or base for the untrained model."),
    step: int = typer.Option(..., "--step", min=0, help="Checkpoint of the run, in iterations; 0 for base."),
    image_set: str = typer.Option(..., "--image-set", help="Image set: a key of `image_sets`."),
    prompts: Path = typer.Option(
        ..., "--prompts", help="Prompt file of the image set (metadata.jsonl in results/E/prompts/SET)."
    ),
    out: Path = typer.Option(..., "--out", help="Folder to write images to; in the workflow results/E/images/R/N/SET."),
    work: Path = typer.Option(
        ..., "--work", help="Folder for unfinished work; the same command goes on from there after an interruption."
    ),
    adapter: Path | None = typer.Option(
        None, "--adapter", help="Adapter folder of the checkpoint. Default: none, as for base."
    ),
    shard: int = typer.Option(0, "--shard", min=0, help="Number of this shard, from 0."),
    num_shards: int = typer.Option(1, "--num-shards", min=1, help="Number of shards that the images are divided into."),
    threads: int | None = THREADS,
    device: str = DEVICE,
) -> None:
    """Generate the images of one checkpoint for an image set, or one shard of them.

    A shard is every NUM_SHARDS-th image, beginning with number SHARD. If it is interrupted, the same command goes on
    where it was.
    """
    from promptecho.models.locate import job_config

    experiment = job_config(config)
    if image_set not in experiment.image_sets:  # said before torch is imported
        known = experiment.image_sets
        raise ConfigError(f"image_sets.{image_set}: no such entry (known: {', '.join(known)}){maybe(image_set, known)}")
    import torch

    from promptecho.cluster.device import choose_device
    from promptecho.generate import GenerateJob, generate_shard

    if threads is not None:
        torch.set_num_threads(threads)
    generate_shard(
        GenerateJob(
            config=experiment,
            run=run,
            step=step,
            image_set=image_set,
            prompts=prompts,
            shard=shard,
            num_shards=num_shards,
            out=out,
            work=work,
            adapter=adapter,
            device=choose_device(device),
        )
    )
