"""`promptecho clean`: delete what a finished experiment no longer needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command()(clean)


def clean(
    results: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of experiments, results/E. Default: all in results."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be deleted; so it is without --yes, too.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete what is listed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """List what a finished experiment no longer needs; with --yes delete it.

    What that is, the keys `clean` of config/config.yaml say; by their defaults nothing finished is deleted. Snakemake
    then has nothing to make again. Type it where you start Snakemake. To delete all results: make clean-results.
    """
    from promptecho.clean.delete import look
    from promptecho.clean.show import lines
    from promptecho.config import load_site, read_yaml
    from promptecho.config.clean import CleanSection
    from promptecho.errors import ConfigError, DataError

    if yes and dry_run:
        raise ConfigError("give --dry-run or --yes, not both")
    site = Path("config/config.yaml")
    policy, experiments = CleanSection(), Path("config/experiments")
    if site.is_file():
        loaded = load_site(read_yaml(site))
        policy, experiments = loaded.clean, Path(loaded.experiments_dir)
    folders = [_experiment(folder) for folder in results] if results else sorted(Path("results").glob("*/config"))
    found = [look(folder if results else folder.parent, policy, experiments) for folder in folders]
    if yes:
        if refused := [f"results/{one.experiment}: {one.refused}" for one in found if one.refused]:
            raise DataError("\n".join([*refused, "nothing was deleted"]))
        for one in found:
            one.delete()
    typer.echo(json.dumps([one.facts() for one in found], indent=2) if as_json else "\n".join(lines(found)))


def _experiment(folder: Path) -> Path:
    """`results/E` as it is written from here."""
    from promptecho.errors import DataError

    place = folder.relative_to(Path.cwd()) if folder.is_absolute() and folder.is_relative_to(Path.cwd()) else folder
    if len(place.parts) != 2 or place.parts[0] != "results" or place.name == ".." or not place.is_dir():
        raise DataError(f"{folder}: not results/E of this folder; start where you start Snakemake")
    return place
