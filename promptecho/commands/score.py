"""`promptecho score`: images -> score file, with the raw answers beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from promptecho.benchmarks.registry import SCORERS


def register(app: typer.Typer) -> None:
    app.command()(score)


def score(
    benchmark: Annotated[str, typer.Option(help="Key of the config's benchmarks; the folder name under scores/.")],
    images: Annotated[Path, typer.Option(help="Folder of images in the benchmark's official layout.")],
    out: Annotated[Path, typer.Option(help="Score file to write (N.json); raw answers go to N.raw.jsonl beside it.")],
    experiment: Annotated[str, typer.Option(help="Experiment name, for the provenance.")],
    run: Annotated[str, typer.Option(help="Run name; `base` for the base model.")],
    step: Annotated[int, typer.Option(min=0, help="Completed training iterations; 0 for the base model.")],
    scorer: Annotated[
        str, typer.Option(help=f"Scoring rules, one of: {', '.join(SCORERS)}. Default: the benchmark's name.")
    ] = "",
    backend: Annotated[str, typer.Option(help="Perception backend.")] = "oracle",
    mode: Annotated[
        str, typer.Option(help="official reproduces the published evaluator, fixed repairs its bugs.")
    ] = "official",
    config_digest: Annotated[
        str, typer.Option(help="Digest of the resolved config. Default: the name of --config.")
    ] = "",
    config: Annotated[Path | None, typer.Option(help="Resolved config (results/E/config/DIGEST.yaml).")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Prompt set to expect; without it the folder's own metadata is trusted.")
    ] = None,
    images_per_prompt: Annotated[
        int | None, typer.Option(min=1, help="Images to expect per prompt. Default: the most found.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Score a folder of images."""
    from promptecho.benchmarks.registry import load_scorer
    from promptecho.benchmarks.scoring import ImageFolder, ScoringOptions
    from promptecho.errors import ConfigError
    from promptecho.files import write_jsonl
    from promptecho.provenance import UNKNOWN, Provenance, git_commit
    from promptecho.scores import Scores, raw_path, write_scores

    scorer = scorer or benchmark
    if (run == "base") != (step == 0):
        raise ConfigError(f"run {run!r} with step {step}: the run 'base' has step 0 and no other run has")
    if out.suffix != ".json":
        raise ConfigError(f"{out}: a score file is named N.json (--out)")
    judge = load_scorer(scorer, ScoringOptions(backend=backend, mode=mode))
    scored = judge.score(ImageFolder(images, prompts, images_per_prompt))
    items, failures = scored.items, sum(item.failed for item in scored.items)
    result = Scores(
        provenance=Provenance(
            experiment=experiment,
            run=run,
            step=step,
            benchmark=benchmark,
            scorer=scorer,
            backend=backend,
            mode=mode,
            config_digest=config_digest or (config.stem if config else UNKNOWN),
            prompts_digest=scored.prompts_digest,
            git_commit=git_commit(),
            judge_model=judge.judge_model,
            n=len(items),
            failures=failures,
        ),
        summary=scored.summary,
        items=items,
    )
    write_jsonl(raw_path(out), scored.raw)  # first: where a score file exists, its raw answers do
    write_scores(out, result)
    if as_json:
        typer.echo(json.dumps({"out": str(out), "n": len(items), "failures": failures, "summary": result.summary}))
    else:
        typer.echo(f"{out}: overall {result.summary['overall']:.2%} of {len(items)} images, {failures} failed")
