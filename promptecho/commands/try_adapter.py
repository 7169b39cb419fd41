"""`promptecho try`: one prompt with and without an adapter."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Annotated

import typer

from promptecho.commands.options import DEVICE, THREADS


def register(app: typer.Typer) -> None:
    app.command("try")(try_adapter)


def try_adapter(
    prompt: Annotated[str, typer.Argument(help="What the images should show.")],
    adapter: Annotated[
        str,
        typer.Option(help="Checkpoint results/E/runs/R/N, adapter folder, LoRA file of any trainer, or hub id."),
    ],
    config: Annotated[
        Path | None,
        typer.Option(
            help="Experiment file or resolved configuration whose model it is for. Needed, except with --model."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Folder or hub id of the model that it is for; shapes and gallery come with the project. "
            "Needed, except with --config."
        ),
    ] = None,
    vlm: Annotated[
        str | None, typer.Option(help="Vision-language model whose echo reward is put under each image. Default: none.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="New folder to write to. Default: the first of try-1, try-2 and so on that is free."),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Images with and as many without the adapter.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise.")] = 0,
    image_set: Annotated[
        str | None,
        typer.Option(help="Sample as this image set of --config does. Default: its first one."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps. Default: as the image set.")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, help="Guidance scale. Default: as the image set.")] = None,
    height: Annotated[int | None, typer.Option(min=1, help="Height in pixels. Default: as the image set.")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Width in pixels. Default: as the image set.")] = None,
    threads: int | None = THREADS,
    device: str = DEVICE,
) -> None:
    """Make images of a prompt with and without an adapter, from the same noise, and put them beside each other."""
    from promptecho.captions.checks import problems_of
    from promptecho.captions.readers import t2i_reader
    from promptecho.config.evaluation import ImageSetSection
    from promptecho.config.families import family_named
    from promptecho.config.tried import check_tried
    from promptecho.errors import DataError
    from promptecho.hub_record import HUB_ID
    from promptecho.models.locate import check_model_path, job_config, locate_model
    from promptecho.shipped import model_path

    if (config is None) == (model is None):
        raise typer.BadParameter("give either --config FILE or --model MODEL, for which the adapter was made")
    place = out or next(path for number in count(1) if not (path := Path(f"try-{number}")).exists())
    # What is missing is said before torch is imported.
    if place.exists():
        raise DataError(f"{place}: exists already; give another folder to --out")
    if not Path(adapter).exists() and HUB_ID.fullmatch(adapter) is None:
        raise DataError(f"{adapter}: no such folder or file, and no hub id (owner/name) either")
    if vlm is not None:
        check_model_path(model_path(vlm, "vlm"))
    experiment = job_config(config) if config is not None else None
    if experiment is not None:
        t2i = experiment.models.t2i
        check_tried(family_named(t2i.family), t2i.frames)
        locate_model(model_path(experiment.models.t2i.path, "t2i"), experiment.models.t2i.revision)
    from promptecho import try_adapter as work

    experiment = experiment or work.config_of_model(str(model), vlm)
    asked = {"images_per_prompt": images, "seed": seed, "num_inference_steps": steps, "guidance_scale": guidance}
    sampling: ImageSetSection = work.sampling_of(experiment, image_set, {**asked, "height": height, "width": width})
    if problem := problems_of([t2i_reader(experiment.models.t2i)], [("the prompt", prompt)], "try"):
        raise DataError(problem)
    tried = work.try_adapter(
        prompt, adapter, experiment, place, sampling=sampling, vlm=vlm, device=device, threads=threads
    )
    typer.echo(str(tried.folder / "side-by-side.png"))
    if rewards := tried.facts["rewards"]:
        means = {side: sum(values) / len(values) for side, values in rewards.items()}
        typer.echo(
            f"echo reward, mean of {images}: {means['base']:.4f} without the adapter, {means['adapter']:.4f} with it"
        )
