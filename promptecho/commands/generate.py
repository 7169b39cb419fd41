"""`promptecho generate`: images of one checkpoint on an image set's prompts."""

from __future__ import annotations

from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    app.command("generate")(generate)


def generate(
    config: Path = typer.Option(..., "--config", help="Experiment file or resolved configuration."),
    run: str = typer.Option(..., "--run", help="Name of the run; `base` is the untrained model."),
    step: int = typer.Option(..., "--step", min=0, help="Checkpoint of the run; 0 for `base`."),
    image_set: str = typer.Option(..., "--image-set", help="Key of `image_sets`."),
    prompts: Path = typer.Option(..., "--prompts", help="The image set's prompt file (metadata.jsonl)."),
    out: Path = typer.Option(..., "--out", help="Image folder: results/E/images/R/N/IMAGE_SET."),
    work: Path = typer.Option(..., "--work", help="Folder that records which batches are done."),
    adapter: Path | None = typer.Option(None, "--adapter", help="Adapter folder of the checkpoint; none for `base`."),
    shard: int = typer.Option(0, "--shard", min=0, help="Which shard, from 0."),
    num_shards: int = typer.Option(1, "--num-shards", min=1, help="Into how many the images are dealt."),
    threads: int | None = typer.Option(None, "--threads", min=1, help="CPU threads."),
    device: str = typer.Option("auto", "--device", help="cpu, cuda, cuda:1, ...; auto: a GPU where there is one."),
) -> None:
    """Generate every NUM_SHARDS-th image from index SHARD on. Killed and started again, it goes on."""
    from promptecho.models.place import job_config

    experiment = job_config(config)
    import torch

    from promptecho.device import choose_device
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
