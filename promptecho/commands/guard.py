"""`promptecho guard`: the images of one checkpoint scored by a reward that watches."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from promptecho.commands.options import DEVICE


def register(app: typer.Typer) -> None:
    app.command()(guard)


def guard(
    name: Annotated[str, typer.Option(help="Which guard of the configuration, by its column.")],
    images: Annotated[Path, typer.Option(help="Folder of images, results/E/images/R/N/SET.")],
    config: Annotated[
        Path, typer.Option(help="Experiment file or resolved configuration (results/E/config/DIGEST.yaml).")
    ],
    run: Annotated[str, typer.Option(help="Name of the run; base for the untrained model.")],
    step: Annotated[int, typer.Option(min=0, help="Checkpoint, in iterations; 0 for base.")],
    work: Annotated[Path, typer.Option(help="Folder that keeps what was scored, for an interruption.")],
    out: Annotated[Path, typer.Option(help="Score file to write, N.json.")],
    config_digest: Annotated[
        str, typer.Option(help="Digest that the score file records. Default: the name of the --config file.")
    ] = "",
    device: str = DEVICE,
) -> None:
    """Score the images of a checkpoint by a guard, a reward that watches and is not trained."""
    import torch

    from promptecho.benchmarks.packing import unpacked
    from promptecho.cluster.device import choose_device
    from promptecho.config import reward_vlm, slice_digest
    from promptecho.config.guards import guard_entry, is_trained_with
    from promptecho.config.memory import reward_keys
    from promptecho.errors import ConfigError, counted
    from promptecho.files import write_json
    from promptecho.guard_files import GuardProvenance, GuardScores
    from promptecho.guard_images import guarded_images, prompts_digest, score_images
    from promptecho.memory import MemoryAdvice
    from promptecho.models.locate import job_config
    from promptecho.phases import Phase
    from promptecho.provenance import git_commit
    from promptecho.rewards import ModelOptions, RewardContext, make_reward

    if (run == "base") != (step == 0):
        raise ConfigError(f"run {run!r} with step {step}: the run 'base' has step 0 and no other run has")
    if out.suffix != ".json":
        raise ConfigError(f"{out}: a score file is named N.json (--out)")
    experiment = job_config(config)
    _, entry = guard_entry(experiment, name)
    settings = slice_digest(experiment, "guard", guard=name)
    section, image_set = reward_vlm(experiment, entry), images.absolute().name
    where = choose_device(device)
    memory = MemoryAdvice(where, partial(reward_keys, entry.batch_size, section.dtype if section else "float32"))
    with unpacked(images) as folder:
        listed = guarded_images(folder)  # what is missing is said before a model is loaded
        vlm = None
        if section is not None:
            from promptecho.vlm import load_vlm

            with memory(Phase.LOAD_VLM):
                vlm = load_vlm(
                    section.path,
                    dtype=section.dtype,
                    device=device,
                    revision=section.revision,
                    trust_remote_code=section.trust_remote_code,
                )
        context = RewardContext(
            vlm=vlm, device=torch.device(where), options=entry.options,
            query=entry.query or experiment.captions.query, batch_size=entry.batch_size,
        )  # fmt: skip
        with memory(Phase.REWARD):
            built = make_reward(entry.name, context)
            items = score_images(name, built, listed, work, entry.batch_size, settings=settings)
    model = section.path if section else entry.options.path if isinstance(entry.options, ModelOptions) else entry.name
    values = [item.outcome for item in items if item.outcome is not None]
    scores = GuardScores(
        provenance=GuardProvenance(
            experiment=experiment.experiment,
            run=run,
            step=step,
            benchmark=image_set,
            scorer=entry.name,
            backend="reward",
            mode="official",
            config_digest=config_digest or config.stem,
            prompts_digest=prompts_digest(listed),
            git_commit=git_commit(),
            judge_model=model,
            n=len(items),
            failures=len(items) - len(values),
            guard=name,
            unit=entry.reward.unit,
            trained=is_trained_with(experiment, run, entry),
            adapter=run in experiment.adapters,
            benchmarks=[key for key, one in experiment.benchmarks.items() if one.image_set == image_set],
        ),
        summary={"mean": sum(values) / len(values)},
        items=items,
    )
    write_json(out, scores.model_dump(mode="json", exclude={"parts"}))
    typer.echo(f"{out}: {name} {scores.summary['mean']:.4g} over {counted(len(values), 'image')}")
