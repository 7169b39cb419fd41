"""Options that several commands have alike."""

from __future__ import annotations

import typer

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
