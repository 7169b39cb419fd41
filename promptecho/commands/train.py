"""`promptecho train`: one segment of one run."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    app.command("train")(train)


def train(
    config: Path = typer.Option(..., "--config", help="Experiment file or resolved configuration."),
    run: str = typer.Option(..., "--run", help="Name of the run, a key of `runs`."),
    to: int = typer.Option(..., "--to", min=1, help="Checkpoint to reach, in completed iterations."),
    captions: Path = typer.Option(..., "--captions", help="Training captions (captions.h5)."),
    out: Path = typer.Option(..., "--out", help="Checkpoint folder to write: results/E/runs/R/N."),
    work: Path = typer.Option(..., "--work", help="Folder of the rolling state, from which a killed segment goes on."),
    resume: Path | None = typer.Option(
        None, "--resume", help="Previous checkpoint folder; none for the first segment."
    ),
    stop_file: Path | None = typer.Option(
        None, "--stop-file", help="Once this file exists: save at the next step boundary and leave with exit code 75."
    ),
    threads: int | None = typer.Option(None, "--threads", min=1, help="CPU threads of this process."),
    device: str = typer.Option("auto", "--device", help="cpu, cuda, cuda:1, ...; auto: a GPU where there is one."),
    as_json: bool = typer.Option(False, "--json", help="Print a summary as JSON."),
) -> None:
    """Train a run to its next checkpoint. Killed or stopped and started again, it goes on with the same bits."""
    from promptecho.train.stop import EXIT_CODE

    with contextlib.redirect_stdout(sys.stderr):  # DeepSpeed logs to stdout, which belongs to --json
        finished = _train(config, run, to, captions, out, work, resume, stop_file, threads, device)
    if as_json:
        print(json.dumps({"run": run, "to": to, "finished": finished, "out": str(out)}))
    if not finished:
        sys.exit(EXIT_CODE)


def _train(config, run, to, captions, out, work, resume, stop_file, threads, device) -> bool:
    import torch

    from promptecho.config import load_experiment
    from promptecho.device import choose_device
    from promptecho.train.loop import Segment, train_segment

    if threads is not None:
        torch.set_num_threads(threads)
    segment = Segment(
        config=load_experiment(config),
        run=run,
        to=to,
        captions=captions,
        out=out,
        work=work,
        resume=resume,
        stop_file=stop_file,
        device=choose_device(device),
    )
    return train_segment(segment)
