"""`promptecho track`: a run's metrics to a tracker afterwards."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command()(track)


def track(
    results: Annotated[Path, typer.Argument(help="Folder of the experiment, results/E.")],
    to: Annotated[str, typer.Option(help="Tracker: tensorboard, trackio, wandb, or one of your own.")],
    run: Annotated[
        list[str] | None, typer.Option(help="Run: a key of `runs`; repeat for several. Default: all that have begun.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Experiment file or resolved configuration, which holds the tracker's settings. Default: that of "
            "results/E/config with which the run was trained."
        ),
    ] = None,
    anew: Annotated[bool, typer.Option("--anew", help="Send all rows, as another run of the tracker.")] = False,
) -> None:
    """Send metrics of finished segments to a tracker that has not got them: it was chosen later, or it failed.

    Rows that it has got already are not sent again. Images are not kept, so that they are not sent.
    """
    from promptecho.train.resend import resend

    with contextlib.redirect_stdout(sys.stderr):  # what the trackers' packages print
        told = resend(results, run or [], to, config, anew=anew)
    for line in told:
        typer.echo(line)
