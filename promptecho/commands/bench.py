"""`promptecho bench`: what this machine's device makes of an experiment, step by step within some minutes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from promptecho.commands.options import DEVICE, THREADS
from promptecho.errors import ConfigError
from promptecho.suggest import maybe


def register(app: typer.Typer) -> None:
    app.command("bench")(bench)


def bench(
    config: Annotated[Path, typer.Option(help="Experiment file or resolved configuration.")],
    run: Annotated[str | None, typer.Option(help="Run whose settings count. Default: the first.")] = None,
    out: Annotated[Path, typer.Option(help="File for the results, which `promptecho plan --mfu` reads.")] = Path(
        "bench.json"
    ),
    report: Annotated[Path | None, typer.Option(help="Markdown file for the report. Default: none.")] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="Begin and go on with no step beyond so many minutes.")] = 10,
    steps: Annotated[
        str | None,
        typer.Option(help="Which steps, such as `peak,iteration,forward`. Default: all, the worthiest first."),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Images of an iteration, and of a pass.")] = 4,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Mean length of a prompt. Default: what the experiment takes, over 1.6.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each, after one that warms up.")] = 3,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Another value of the configuration; repeat for several. Default: as it is written.",
        ),
    ] = None,
    device: str = DEVICE,
    threads: int | None = THREADS,
) -> None:
    """Measure an experiment on this machine's GPU: sampler, reward, update, whole iterations, kernels.

    Loads the experiment's models; prompts are made up, and nothing of the experiment's results is touched. A step that
    fails is a row with its reason. Exit code 1 if one failed, 130 if interrupted; what was measured stays.
    """
    from promptecho.bench import report as pages
    from promptecho.bench.runner import exit_code, progress, run_steps
    from promptecho.bench.suite import STEPS, chosen, steps_of
    from promptecho.config import load_experiment
    from promptecho.config.editing import refuse_editing
    from promptecho.config.families import family_named
    from promptecho.config.job_sizes import takes_gpu
    from promptecho.config.video_checks import refuse_videos

    loaded = load_experiment(config)
    family = family_named(loaded.models.t2i.family)
    refuse_editing(family, "promptecho bench")
    refuse_videos(family, "promptecho bench", "not to be had yet: `promptecho plan` estimates what a training takes")
    if run is not None and run not in loaded.runs:
        raise ConfigError(f"--run {run}: no such run (known: {', '.join(loaded.runs)}){maybe(run, loaded.runs)}")
    if images % 2 and images > 2:
        raise ConfigError(f"--images {images}: an iteration has two prompts; give an even number")
    names = chosen(steps)
    if not names:
        raise ConfigError(f"--steps {steps}: no such step (known: {', '.join(STEPS)})")
    options = ["--images", str(images), "--rounds", str(rounds), "--device", device]
    for word, value in (("--run", run), ("--tokens", tokens), ("--threads", threads)):
        options += [word, str(value)] if value is not None else []
    facts = {
        "schema_version": 1, "title": f"promptecho bench: {loaded.experiment}", "config": str(config),
        "command": shlex.join(["promptecho", *sys.argv[1:]]), "changes": changes or [],
    }  # fmt: skip
    embedded = not any(takes_gpu(loaded, "train", name) for name in ([run] if run else list(loaded.runs)[:1]))
    selected = steps_of(names, config, options, changes or [], embedded=embedded)
    results = run_steps(selected, facts, out, minutes, progress)
    page = pages.page(results)
    typer.echo(page)
    if report is not None:
        from promptecho.files import write_text

        write_text(report, page)
    if code := exit_code(results):
        raise typer.Exit(code)
