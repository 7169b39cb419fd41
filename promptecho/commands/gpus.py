"""`promptecho gpus`: the GPUs of this machine, who has them, and commands that get some of their own."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

Devices = Annotated[
    str | None,
    typer.Option(
        help="GPUs to choose from: UUIDs, separated by commas. Default: those in CUDA_VISIBLE_DEVICES; "
        "without it, all of this machine."
    ),
]
Folder = Annotated[
    Path | None,
    typer.Option(help="Folder that records who has which GPU. Default: /tmp/promptecho-gpus-UID, for this user alone."),
]


def register(app: typer.Typer) -> None:
    gpus = typer.Typer(help="Show the GPUs of this machine and who uses each; `run` starts a command on free ones.")
    gpus.callback(invoke_without_command=True)(show)
    gpus.command("run")(run)
    app.add_typer(gpus, name="gpus")


def _available(devices: str | None) -> list[tuple[str, str]]:
    """(UUID, name) of each."""
    from promptecho.cluster.gpus import detect, visible

    if devices is not None:
        return [(word.strip(), "") for word in devices.split(",") if word.strip()]
    return [(gpu.uuid, gpu.name) for gpu in visible(os.environ, detect())]


def show(
    context: typer.Context,
    devices: Devices = None,
    folder: Folder = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """Show the GPUs of this machine and who uses each; `run` starts a command on free ones."""
    if context.invoked_subcommand is not None:
        return
    from promptecho.cluster.leases import Leases, default_folder

    found = _available(devices)
    held, waiting = Leases(folder or default_folder(), [uuid for uuid, _ in found]).show()
    if as_json:
        rows = [
            {"uuid": uuid, "name": name, "held_by": held[uuid].__dict__ if uuid in held else None}
            for uuid, name in found
        ]
        typer.echo(json.dumps({"gpus": rows, "waiting": [request.__dict__ for request in waiting]}, indent=2))
        return
    if not found:
        typer.echo("no GPU on this machine")
    for uuid, name in found:
        typer.echo(f"{uuid} {name}: {held.get(uuid, 'free')}".replace(" :", ":"))
    for request in waiting:
        typer.echo(f"waiting for {request.count}: {request}")


def run(
    command: Annotated[list[str], typer.Argument(help="The command to start, written after --.")],
    count: Annotated[int, typer.Option(min=0, help="Number of GPUs that the command gets; with 0 it sees none.")],
    devices: Devices = None,
    folder: Folder = None,
) -> None:
    """Wait for free GPUs and start a command on them. No other command that is started so gets them until it ends.

    Who asks first is served first. The command sees its GPUs in CUDA_VISIBLE_DEVICES. Inside a Slurm job, and on a
    machine without GPUs, it is started at once and nothing is changed.
    """
    from promptecho.cluster.gpus import VISIBLE
    from promptecho.cluster.leases import Leases, default_folder
    from promptecho.errors import ConfigError

    if "SLURM_JOB_ID" not in os.environ and (found := _available(devices)):
        taken: list[str] = []
        if count:
            leases = Leases(folder or default_folder(), [uuid for uuid, _ in found])
            taken = leases.take(
                count, shlex.join(command)[:200], lambda text: print(f"promptecho: {text}", file=sys.stderr, flush=True)
            )
        os.environ[VISIBLE] = ",".join(taken)
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and the command would inherit that
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise ConfigError(f"{command[0]}: can't be started ({error.strerror})") from error
