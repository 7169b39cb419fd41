"""`promptecho publish`: a checkpoint as a folder that a model hub takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command()(publish)


def publish(
    results: Annotated[Path, typer.Argument(help="Folder of the experiment, results/E.")],
    run: Annotated[str, typer.Option(help="Run whose adapter is published: a key of `runs`.")],
    licence: Annotated[
        str, typer.Option("--license", help="Licence of the adapter, as the hub names it, such as apache-2.0.")
    ],
    out: Annotated[Path, typer.Option(help="New folder to write.")],
    step: Annotated[int | None, typer.Option(min=1, help="Checkpoint, in iterations. Default: the last one.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Experiment file or resolved configuration. Default: that of the newest scores."),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(help="What the hub calls the base model, owner/name. Default: as a fetched model's record says."),
    ] = None,
    hub_name: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME", help="What the hub will call this adapter, for the card. Default: that of --upload."
        ),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Prompts of the gallery.")] = 8,
    upload: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME",
            help="Also send the folder to this new repository of the hub; the token is taken from HF_TOKEN. "
            "Default: nothing is sent.",
        ),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="With --upload: only you can see the repository.")] = False,
) -> None:
    """Write a folder for a model hub: the adapter in the formats of PEFT, diffusers and ComfyUI, a card made from the
    scores, images, and the configuration that made it."""
    from promptecho.browse.sources import configuration_of
    from promptecho.commands.files import given_files
    from promptecho.config import load_experiment
    from promptecho.hub_record import HUB_ID
    from promptecho.publish import folder as work
    from promptecho.publish.card import hub_id_of
    from promptecho.publish.upload import check_upload
    from promptecho.publish.upload import upload as send
    from promptecho.shipped import model_path

    (place,) = given_files("RESULTS", [results])
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", licence):
        raise typer.BadParameter(f"--license {licence}: expected a name of the hub's, such as apache-2.0 or mit")
    if private and upload is None:
        raise typer.BadParameter("--private is for --upload")
    for option, value in (("--hub-name", hub_name), ("--base-model", base_model)):
        if value is not None and HUB_ID.fullmatch(value) is None:
            raise typer.BadParameter(f"{option} {value}: expected owner/name, as the hub calls it")
    if upload is not None:
        if hub_name not in (None, upload):
            raise typer.BadParameter(f"--hub-name {hub_name}: --upload sends it to {upload}; give one name")
        check_upload(upload)
    experiment = load_experiment(config or configuration_of(place))
    chosen = step if step is not None else work.last_step(place, run)
    files = work.publish(
        place, experiment, run, chosen, out, licence=licence, base_model=base_model, images=images,
        hub_name=hub_name or upload or "OWNER/NAME",
    )  # fmt: skip
    t2i = experiment.models.t2i.path
    if hub_id_of(model_path(t2i, "t2i"), base_model, experiment.models_root) is None:
        typer.echo(
            f"promptecho: WARNING: models.t2i.path {t2i}: what the hub calls the base model is not known here, so the "
            "card does not say it; give --base-model owner/name",
            err=True,
        )
    typer.echo(f"{out}: {len(files)} files; read {out / 'README.md'} before you hand it on")
    if upload is not None:
        typer.echo(send(out, upload, private=private))
