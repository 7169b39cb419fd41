"""`promptecho stop`: a training finishes its iteration, saves and ends."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command()(stop)


def stop(
    results: Annotated[Path, typer.Argument(help="Folder of the experiment, results/E.")],
    run: Annotated[list[str], typer.Option(help="Run to stop: a key of `runs`; repeat for several.")],
    undo: Annotated[bool, typer.Option("--undo", help="Take the request back.")] = False,
) -> None:
    """Have a training finish the iteration under way, save and end, wherever it runs; nothing is lost.

    Snakemake then reports that its job has failed, with exit code 75, and goes on with what does not need it. The
    request holds until Snakemake is started again, which goes on where the training was, to the same bits.
    """
    from promptecho.errors import DataError
    from promptecho.status.stop import ask_to_stop, check_run, take_back

    for name in run:
        check_run(results, name)
    for name in run:
        if undo:
            try:
                there = take_back(results, name)
            except OSError as error:
                raise DataError(f"{error.filename}: can't be removed ({error.strerror})") from None
            typer.echo(f"{name}: {'goes on' if there else 'was not asked to stop'}")
        else:
            ask_to_stop(results, name)
            typer.echo(f"{name}: stops after the iteration under way; the next start of Snakemake goes on")
