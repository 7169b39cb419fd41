"""`promptecho models`: what a configuration needs, fetched where there is internet, checked where there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptecho.commands.files import given_files

if TYPE_CHECKING:
    from promptecho.models.inventory import ModelStatus


def register(app: typer.Typer) -> None:
    models = typer.Typer(no_args_is_help=True, help="The models that an experiment needs: list, fetch and check them.")
    models.callback()(lambda: None)
    models.command("list")(list_models)
    models.command()(fetch)
    models.command()(verify)
    models.command()(unstage)
    app.add_typer(models, name="models")


Config = Annotated[list[Path] | None, typer.Option(help="The same as an option; several may follow it. Default: none.")]
More = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[CONFIG]...", help="Experiment files or resolved configurations."),
]
Root = Annotated[
    Path | None,
    typer.Option(help="Folder of fetched models, ROOT/owner/name. Default: models_root in config/config.yaml."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")]


def list_models(more: More = None, config: Config = None, root: Root = None, as_json: AsJson = False) -> None:
    """List every model that an experiment needs, what it is for, and where it is."""
    found = _statuses(given_files("--config", config, more), root)
    if as_json:
        typer.echo(json.dumps([model.facts() for model in found], indent=2))
        return
    for model in found:
        typer.echo(_describe(model))


def fetch(
    more: More = None,
    config: Config = None,
    root: Root = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Compare every file that is there with the hub's hash, even if its size and time are unchanged.",
        ),
    ] = (False),
    endpoint: Annotated[
        str | None, typer.Option(help="URL of a mirror of the hub. Default: https://huggingface.co, or HF_ENDPOINT.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Download the models of an experiment from the hub to ROOT/owner/name, and check every file.

    Run it where there is internet. For models whose terms must be accepted, set HF_TOKEN in the environment.
    """
    from promptecho.config import load_experiment
    from promptecho.errors import ConfigError, ModelError
    from promptecho.models.fetch import Hub, fetch_all
    from promptecho.models.inventory import models_folder

    configs = given_files("--config", config, more)
    models, folder = _needed(configs, root)
    if folder is None:
        raise ConfigError(
            "models fetch: where to? write `models_root: FOLDER` into config/config.yaml, where jobs look for "
            "models too; or give --root FOLDER"
        )
    wanted = [model for model in models if model.on_hub]
    done, problems = fetch_all(wanted, folder, Hub(endpoint), full=full)
    if as_json:
        facts: list[dict[str, Any]] = [
            {
                "source": one.hub_id, "folder": str(one.folder), "status": one.status, "commit": one.record.commit,
                "revision": one.record.revision, "bytes": one.record.size, "downloaded_files": one.files,
                "downloaded_bytes": one.bytes,
            }
            for one in done
        ]  # fmt: skip
        typer.echo(json.dumps({"models": facts, "problems": problems}, indent=2))
    else:
        for one in done:
            came = f"{one.files} files, {_gigabytes(one.bytes)}, fetched" if one.files else one.status
            typer.echo(f"{one.hub_id}: {came}; commit {one.record.commit} in {one.folder}")
    for one in done:
        if one.pin:
            typer.echo(
                f"warning: {one.hub_id} is not pinned; write `revision: {one.record.commit}` in the configuration "
                "before the first run, or another machine may fetch another model",
                err=True,
            )
    looked_at = models_folder(load_experiment(configs[0]), None)
    if done and (looked_at is None or looked_at.resolve() != folder.resolve()):
        typer.echo(
            f"warning: jobs do not look into {folder}: models_root of config/config.yaml is {looked_at or 'not set'}; "
            f"write `models_root: {folder}` there",
            err=True,
        )
    for model in models:
        if model.kind == "modelscope":
            typer.echo(f"{model.source} ({model.used_by[0]}): is not on this hub; see promptecho models list", err=True)
    if problems:
        raise ModelError("\n".join(problems))


def verify(more: More = None, config: Config = None, root: Root = None, as_json: AsJson = False) -> None:
    """Read every fetched file and compare it with its recorded hash.

    Exit code 1 if a model is missing or was changed.
    """
    from promptecho.models import inventory

    checked = [inventory.verify(model) for model in _statuses(given_files("--config", config, more), root)]
    if as_json:
        typer.echo(json.dumps([model.facts() for model in checked], indent=2))
    else:
        for model in checked:
            if model.ready:
                state = f"{model.where}, without a record to compare with"
                state = "every file as recorded" if model.record else state
                typer.echo(f"{model.model.source}: {state}")
    inventory.check_ready(checked)


def unstage(
    staging: Annotated[Path, typer.Option(help="Folder of the copies: models.staging in config/config.yaml.")],
    as_json: AsJson = False,
) -> None:
    """Delete your copies of models on this node's disk, except those that a job is using."""
    from promptecho.models.staging import unstage as delete

    deleted, kept = delete(staging)
    if as_json:
        typer.echo(json.dumps({"deleted": deleted, "in_use": kept}))
    else:
        typer.echo(f"deleted: {', '.join(deleted) or 'nothing'}" + (f"; in use: {', '.join(kept)}" if kept else ""))


def _needed(configs: list[Path], root: Path | None) -> tuple[list, Path | None]:
    """Models of all configurations, each source once, and the folder of fetched models."""
    from promptecho.config import load_experiment
    from promptecho.models.inventory import models_folder
    from promptecho.models.required import merge, required_models

    loaded = [load_experiment(path) for path in configs]
    folders = [models_folder(config, root) for config in loaded]
    return merge(model for config in loaded for model in required_models(config)), folders[0]


def _statuses(configs: list[Path], root: Path | None) -> list[ModelStatus]:
    from promptecho.models.inventory import model_status

    models, folder = _needed(configs, root)
    return [model_status(model, folder) for model in models]


def _describe(found: ModelStatus) -> str:
    model = found.model
    revision = f" @ {model.revision}" if model.revision else ""
    size = f", {_gigabytes(found.bytes)}" if found.bytes is not None else ""
    commit = f", commit {found.record.commit}" if found.record else ""
    place = f"{found.where}: {found.path}{size}{commit}" if found.path else found.where
    problem = f"; {found.problem}" if found.problem else ""
    return f"{model.source}{revision} ({', '.join(model.used_by)}): {place}{problem}"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
