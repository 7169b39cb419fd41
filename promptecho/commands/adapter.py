"""`promptecho adapter`: adapters that were trained elsewhere, and ours for use elsewhere."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from promptecho.errors import DataError


def register(app: typer.Typer) -> None:
    adapter = typer.Typer(
        no_args_is_help=True, help="Adapters that were trained elsewhere, and ours for use elsewhere."
    )
    adapter.callback()(lambda: None)
    adapter.command("import")(import_adapter)
    adapter.command("export")(export_adapter)
    app.add_typer(adapter, name="adapter")


def import_adapter(
    config: Annotated[
        Path, typer.Option(help="Experiment file or resolved configuration; the adapter must fit its models.t2i.")
    ],
    source: Annotated[
        str, typer.Option(help="The adapter: a PEFT folder, a LoRA file or its folder, or a hub id owner/name.")
    ],
    out: Annotated[Path, typer.Option(help="Adapter folder to write; promptecho generate --adapter reads it.")],
    revision: Annotated[
        str | None, typer.Option(help="Commit on the hub; for a hub id only. Default: the newest.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for downloads. Default: Hugging Face's own.")] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            help="LoRA alpha that it was trained with, for a file that does not state it. Default: what the file "
            "states; where it states nothing, strength 1, as diffusers takes it."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """Check an adapter against the model and write it as an adapter folder."""
    from promptecho.config.families import family_named
    from promptecho.hub_record import HUB_ID
    from promptecho.models.locate import job_config, locate_model
    from promptecho.shipped import model_path

    t2i = job_config(config).models.t2i
    # Said before diffusers is imported.
    if not Path(source).exists():
        if HUB_ID.fullmatch(source) is None:
            raise DataError(f"{source}: no such folder or file, and no hub id (owner/name) either")
        locate_model(source, revision)
    locate_model(model_path(t2i.path, "t2i"), t2i.revision)
    from promptecho.t2i.external import convert_adapter, load_target, locate_adapter

    target = load_target(family_named(t2i.family), model_path(t2i.path, "t2i"), t2i.revision)
    found = locate_adapter(source, cache, revision)
    imported = convert_adapter(found, out, target, alpha=alpha, origin=source)
    typer.echo(json.dumps(asdict(imported), indent=2) if as_json else f"{out}: {imported.describe()}")


def export_adapter(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Adapter folders (results/E/runs/R/N/adapter), or checkpoints (results/E/runs/R/N)."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="File to write; for one folder. Default: comfyui_lora.safetensors in each folder."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """Write adapters that exist for ComfyUI and other readers of `.alpha` entries.

    New checkpoints have the file already; for older ones it is made here, without training anything.
    """
    from promptecho.t2i.comfyui import export

    facts = export(folders, out)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        for fact in facts:
            typer.echo(
                f"{fact['file']}: {fact['modules']} modules" + ("" if fact["written"] else ", was there already")
            )
