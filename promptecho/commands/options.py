"""Options that several commands have alike."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from promptecho.config import ExperimentConfig

DEVICE = typer.Option(
    "auto", "--device", help="Where to compute: cpu, cuda, cuda:1, ...; auto takes a GPU if there is one."
)
THREADS = typer.Option(None, "--threads", min=1, help="CPU threads. Default: one for each core.")
VLM_DTYPE = typer.Option(
    None,
    "--dtype",
    help="Type of the weights: float32, bfloat16, float16. Default: models.vlm.dtype; with --vlm float32.",
)
TRUST_REMOTE_CODE = typer.Option(False, "--trust-remote-code", help="Run Python code that comes with the model.")
PluginsConfig = Annotated[
    Path | None,
    typer.Option(
        "--config", help="Experiment file, for a benchmark that its `plugins` bring; others need none. Default: none."
    ),
]
GuardsConfig = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Experiment file, for a benchmark that its `plugins` bring, and for its guards: scores of a guard that it "
        "no longer has are left out. Default: none.",
    ),
]
# Of samples, whatever is drawn of them.
SamplePrompts = Annotated[
    int, typer.Option(min=1, help="Number of prompts. Which ones follows from their ids and verdicts.")
]
ImageIndex = Annotated[int, typer.Option(min=0, help="Which image of each prompt, from 0.")]
MaxColumns = Annotated[
    int, typer.Option(min=2, help="Most checkpoints; of more image folders so many are chosen, evenly.")
]


def load_plugins_of(config: Path | None) -> ExperimentConfig | None:
    """Import what an experiment file names in `plugins`; the experiment."""
    if config is None:
        return None
    from promptecho.config import load_experiment

    return load_experiment(config)


@contextlib.contextmanager
def plugins_of(config: Path | None) -> Iterator[ExperimentConfig | None]:
    """With what an experiment file names in `plugins`, and with the experiment; an unknown benchmark is reported with
    how to make it known."""
    from promptecho.errors import ConfigError

    experiment = load_plugins_of(config)
    try:
        yield experiment
    except ConfigError as error:
        if config is None and str(error).startswith("unknown benchmark"):
            told = f"{error}; one that the plugins of an experiment bring needs its file: --config FILE"
            raise ConfigError(told) from None
        raise


def use_threads(threads: int | None) -> None:
    """Let torch compute with so many threads, where a command was told a number."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
