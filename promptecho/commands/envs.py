"""`promptecho envs`: the environments of the stages as virtual environments, where there is no conda."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from promptecho.envs.built import BuiltEnv


def register(app: typer.Typer) -> None:
    envs = typer.Typer(
        no_args_is_help=True,
        help="The environments of the stages (envs/*.yaml) as virtual environments: list, build and check them.",
    )
    envs.callback()(lambda: None)
    envs.command("list")(list_envs)
    envs.command()(build)
    envs.command()(check)
    app.add_typer(envs, name="envs")


Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME]...",
        help="Names of files in envs/, or YAML files of your own. Default: all of envs/ but mplug and workflow.",
    ),
]
Folder = Annotated[
    Path | None, typer.Option(help="Folder of built environments. Default: `envs` in config/config.yaml.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")]


def list_envs(folder: Folder = None, as_json: AsJson = False) -> None:
    """List the environment files, and how each stands in the folder of built environments."""
    from promptecho.envs.built import left_over, look_at
    from promptecho.envs.spec import ENVS, specs_named

    specs = specs_named(sorted(path.stem for path in ENVS.glob("*.yaml")))
    place = folder or _site_folder()
    if place is not None:
        _tell([look_at(place, spec) for spec in specs], as_json)
        if not as_json and (old := left_over(place, specs)):
            typer.echo(f"not in use any more, unless a job still runs with it: {', '.join(map(str, old))}")
        return
    if as_json:
        facts = [{"name": one.name, "file": str(one.file), "packages": list(one.packages)} for one in specs]
        typer.echo(json.dumps(facts, indent=2))
        return
    for one in specs:
        typer.echo(f"{one.name:<9} {len(one.packages):>2} packages and what they need, Python {one.python}: {one.file}")


def build(
    names: Names = None,
    into: Annotated[
        Path | None,
        typer.Option(help="Folder to build in, which all nodes see. Default: `envs` in config/config.yaml."),
    ] = None,
    python: Annotated[
        str | None,
        typer.Option(help="Python to make them with. Default: this one, or pythonX.Y of PATH, as the file says."),
    ] = None,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help="Take the very files of envs/NAME.linux-64.lock.txt, by their hashes; with torch, PyPI's for CUDA.",
        ),
    ] = False,
) -> None:
    """Make the environments with venv and pip. One that is there and current stays as it is.

    What is interrupted leaves nothing under the environment's name; the same command goes on, and pip does not download
    again what it has in its cache. pip's own settings (index, proxy, certificates) hold.
    """
    from promptecho.envs.build import build as make
    from promptecho.envs.spec import specs_named

    folder = _folder(into, "--into")
    for spec in specs_named(names):
        make(spec, folder.absolute(), python, typer.echo, exact)
    typer.echo(f"the workflow uses them with --config envs={folder}, or the key envs in config/config.yaml")


def check(
    names: Names = None,
    folder: Folder = None,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help="Ask also whether they were built with --exact from envs/NAME.linux-64.lock.txt as it is now, and "
            "whether their packages are still those, by name and version.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tell which environments are there and made from their files as they are now.

    Exit code 1 if one is missing, stale, broken or changed, or has no lock file for --exact.
    """
    from promptecho.envs.built import look_at, look_inside
    from promptecho.envs.spec import specs_named

    found = [look_at(_folder(folder, "--folder"), spec, exact) for spec in specs_named(names)]
    if exact:
        found = [look_inside(one) for one in found]
    _tell(found, as_json)
    if any(one.state != "current" for one in found):
        raise typer.Exit(1)


def _tell(found: list[BuiltEnv], as_json: bool) -> None:
    if as_json:
        recorded = ("digest", "exact", "python", "bytes", "packages")
        facts = [
            {"name": one.spec.name, "state": one.state, "problem": one.problem}
            | {key: one.record.get(key) for key in recorded}
            for one in found
        ]
        typer.echo(json.dumps(facts, indent=2))
        return
    for one in found:
        if one.state != "current":
            typer.echo(one.line)
            continue
        size, packages = one.record["bytes"] / 1e9, len(one.record["packages"])
        typer.echo(f"{one.spec.name}: current; {packages} packages, {size:.2f} GB, Python {one.record['python']}")


def _folder(given: Path | None, option: str) -> Path:
    from promptecho.errors import ConfigError

    if (folder := given or _site_folder()) is None:
        raise ConfigError(f"envs: which folder? give {option}, or set envs in config/config.yaml")
    return folder


def _site_folder() -> Path | None:
    """The site's folder of environments, where this is a place to start Snakemake."""
    from promptecho.config import load_site, read_yaml
    from promptecho.models.inventory import SITE

    folder = load_site(read_yaml(SITE)).envs if SITE.is_file() else None
    return None if folder is None else Path(folder)
