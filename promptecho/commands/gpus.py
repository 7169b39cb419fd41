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
    typer.Option(help="UUIDs to choose from, with commas. Default: those of this machine, or of CUDA_VISIBLE_DEVICES."),
]
Folder = Annotated[
    Path | None, typer.Option(help="Folder of the leases. Default: /tmp/promptecho-gpus-UID, for this user alone.")
]


def register(app: typer.Typer) -> None:
    gpus = typer.Typer(help="GPUs of this machine: who has which; `run` starts a command with some of its own.")
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
    """GPUs of this machine: who has which; `run` starts a command with some of its own."""
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
    command: Annotated[list[str], typer.Argument(help="The command, after `--`.")],
    count: Annotated[int, typer.Option(min=0, help="GPUs that the command gets; 0: it sees none.")],
    devices: Devices = None,
    folder: Folder = None,
) -> None:
    """Become the command, with CUDA_VISIBLE_DEVICES set to GPUs that no other such command has until it ends.

    Waits for them, in the order of asking. Inside a Slurm job, and on a machine without GPUs, nothing is changed.
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
