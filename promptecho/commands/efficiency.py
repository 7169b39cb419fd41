"""`promptecho efficiency`: what jobs asked for against what they used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command()(efficiency)


def efficiency(
    results: Annotated[Path, typer.Argument(help="Folder of the experiment, results/E.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Compare what jobs asked for with what they used, by rule, and print better requests for the profile.

    Used is what Slurm's sacct says, where it answers, and else what Snakemake has measured. What nobody has measured is
    shown as unknown.
    """
    from promptecho.screen import screen
    from promptecho.status.blocks import blocks_of_use
    from promptecho.status.efficiency import measure, snippet
    from promptecho.status.show import picture

    found = measure(results)
    if as_json:
        typer.echo(json.dumps(found.to_json() | {"profile": snippet(found.rules)}, indent=2, allow_nan=False))
    else:
        screen().print(picture(blocks_of_use(found), whole_lines=True), crop=False)
