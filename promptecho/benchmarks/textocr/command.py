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
        typer.Option(
            help="Training prompts: captions.h5, a .txt, or a .jsonl or .csv with data_id and caption or prompt."
        ),
    ],
    config: Annotated[Path, typer.Option(help="Experiment file whose judges.models names the judge.")],
    judge: Annotated[str, typer.Option(help="Who makes the labels: a key of judges.models.")],
    answers: Annotated[Path, typer.Option(help="Folder that keeps what the judge answered.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Label file to write, for the key `label` of an entry of `rewards`. Needed, except with --estimate."
        ),
    ] = None,
    prompts_out: Annotated[
        Path | None,
        typer.Option(
            help="File to write as well: the prompts that got a label, for `captions.prompts`. Default: none."
        ),
    ] = None,
    estimate: Annotated[
        bool,
        typer.Option("--estimate", help="Ask nothing; print how many calls, tokens and dollars are still to come."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """Make labels for training on text in images: a judge sorts the texts that each prompt asks for by their role."""
    from promptecho.benchmarks.textocr import labels as labelling
    from promptecho.config import load_experiment
    from promptecho.errors import ConfigError, counted

    if estimate == (out is not None):
        raise ConfigError("give either --out FILE, to ask, or --estimate")
    judges = load_experiment(config).judges
    if judge not in judges.models:
        known = ", ".join(judges.models) or "none"
        raise ConfigError(f"{config}: judges.models.{judge}: no such judge (known: {known})")
    texts = labelling.read_texts(prompts)
    asking = (texts, judges.models[judge], answers)
    if out is None:
        facts = asdict(labelling.estimate_labels(*asking, templates=judges.templates))
        typer.echo(json.dumps(facts) if as_json else "; ".join(f"{key}: {value}" for key, value in facts.items()))
        return
    made = labelling.write_labels(*asking, out, templates=judges.templates, outage_s=judges.outage_s)
    if prompts_out is not None:
        labelling.write_labelled(texts, made, prompts_out)
    if as_json:
        told = {"out": str(out), "written": made.written, "failed": made.failed}
        typer.echo(json.dumps(told, ensure_ascii=False))
        return
    typer.echo(f"{out}: {counted(made.written, 'label')}")
    for name, reason in made.failed.items():
        typer.echo(f"  without label: {name}: {reason}")
    if made.failed:
        lacking = counted(len(made.failed), "prompt")
        them = "it" if len(made.failed) == 1 else "them"
        without = f"train without {them}" if prompts_out is None else f"{prompts_out} is without {them}"
        typer.echo(f"{lacking} without label, listed in {labelling.failed_path(out)}: {without}")
