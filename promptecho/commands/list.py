"""`promptecho list`: what can be chosen by name in an experiment file, and who brings it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer


def register(app: typer.Typer) -> None:
    listed = typer.Typer(no_args_is_help=True, help="What can be chosen by name in an experiment file: rewards.")
    listed.command("rewards")(rewards)
    app.add_typer(listed, name="list")


def rewards(
    config: Path | None = typer.Option(
        None, "--config", help="Experiment file, whose `plugins` are listed too. Default: none."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """List the rewards: those of the project, those of installed packages, and those that an experiment file names."""
    from promptecho.config import load_experiment
    from promptecho.config.descriptors import REWARDS
    from promptecho.errors import ConfigError

    if config is not None:
        load_experiment(config)
    rows: list[dict[str, Any]] = []
    for name in REWARDS.names():
        try:
            found = REWARDS.find(name)
        except ConfigError as error:
            rows.append({"name": name, "problem": str(error)})
            continue
        one = found.thing
        settings = [] if one.options is None else list(one.options.model_fields)
        rows.append(
            {"name": name, "summary": one.summary, "needs": one.needs, "settings": settings, "version": one.version,
             "from": found.origin, "object": found.spec}
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(caption="a reward of your own: docs/extending.md")
    for column in ("name", "what it is", "needs", "settings", "version", "from"):
        table.add_column(column, overflow="fold")
    for row in rows:
        if "problem" in row:
            table.add_row(row["name"], Text(row["problem"], style="red"), "", "", "", "")
            continue
        settings = ", ".join(row["settings"])
        cells = (row["summary"], row["needs"], settings, str(row["version"]), row["from"])
        table.add_row(row["name"], *map(Text, cells))
    Console().print(table)
