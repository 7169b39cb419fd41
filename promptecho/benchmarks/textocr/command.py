"""`promptecho benchmarks labels`: labels for training on text rendering."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer


def labels(
    prompts: Annotated[
        Path,
        typer.Option(help="captions.h5, or prompts as .txt, .jsonl or .csv ({data_id, caption} or {data_id, prompt})."),
    ],
    config: Annotated[Path, typer.Option(help="Experiment file whose `judges.models` has the judge.")],
    judge: Annotated[str, typer.Option(help="Key of `judges.models`: who makes the labels.")],
    answers: Annotated[Path, typer.Option(help="Folder that keeps what the judge answered.")],
    out: Annotated[Path | None, typer.Option(help="Label file to write, for `rewards[].label`.")] = None,
    estimate: Annotated[bool, typer.Option(help="Ask nothing; tell calls, tokens and cost still to come.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """Have a judge sort the texts that prompts require by their role: what a reward model should read in an image."""
    from promptecho.benchmarks.textocr import labels as labelling
    from promptecho.config import load_experiment
    from promptecho.errors import ConfigError

    if estimate == (out is not None):
        raise ConfigError("give either --out FILE, to ask, or --estimate")
    judges = load_experiment(config).judges
    if judge not in judges.models:
        known = ", ".join(judges.models) or "none"
        raise ConfigError(f"{config}: judges.models.{judge}: no such judge (known: {known})")
    texts = labelling.read_texts(prompts)
    asking = (texts, judges.models[judge], answers)
    if estimate:
        facts = asdict(labelling.estimate_labels(*asking, templates=judges.templates))
        typer.echo(json.dumps(facts) if as_json else "; ".join(f"{key}: {value}" for key, value in facts.items()))
        return
    made = labelling.write_labels(*asking, out, templates=judges.templates)
    if as_json:
        facts = {"out": str(out), "written": made.written, "failed": made.failed}
        typer.echo(json.dumps(facts, ensure_ascii=False))
        return
    typer.echo(f"{out}: {made.written} labels")
    for name, reason in made.failed.items():
        typer.echo(f"  without label: {name}: {reason}")
    if made.failed:
        typer.echo(
            f"{len(made.failed)} prompts without label, listed in {labelling.failed_path(out)}: train without them"
        )
