"""`promptecho figures words`: sample grids whose prompts are read word by word, by the frozen VLM of the run."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from promptecho.commands.files import given_files
from promptecho.commands.options import DEVICE, ImageIndex, MaxColumns, SamplePrompts, plugins_of


def words(
    images: Annotated[
        list[Path],
        typer.Argument(help="Image folders, results/E/images/R/N/SET, of one image set; the base model's first."),
    ],
    config: Annotated[
        Path, typer.Option(help="Experiment file or resolved configuration; names the VLM and its question.")
    ],
    out: Annotated[Path, typer.Option(help="Page to write, NAME.html; NAME.json beside it has its numbers.")],
    run: Annotated[
        str | None,
        typer.Option(help="Whose reward reads: a key of `runs`. Default: the run of the last images."),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(
            help="Folder of scores, results/E/scores/B: prompts are wins, losses and ties of the last images against "
            "the first, in their true proportions. Default: none."
        ),
    ] = None,
    prompts: SamplePrompts = 24,
    image_index: ImageIndex = 0,
    max_columns: MaxColumns = 6,
    blank: Annotated[
        str, typer.Option(help="Colours of the blank images that changes are measured from, or `mean`.")
    ] = "black,grey,white",
    device: str = DEVICE,
    batch_size: Annotated[int, typer.Option(min=1, help="Images that the model takes together.")] = 16,
) -> None:
    """Write a page of samples on which each prompt's words are coloured by how the VLM reads them on each image."""
    import torch

    from promptecho.benchmarks.packing import unpacked
    from promptecho.cluster.device import choose_device
    from promptecho.config import reward_vlm, run_rewards
    from promptecho.config.memory import reward_keys
    from promptecho.config.rewards import RewardSection
    from promptecho.errors import ConfigError
    from promptecho.figures.samples import choose, thin
    from promptecho.figures.sources import read_columns
    from promptecho.memory import MemoryAdvice
    from promptecho.models.locate import job_config
    from promptecho.phases import Phase
    from promptecho.reading.samples import write_sample_words
    from promptecho.rewards.echo.blanks import check_blank
    from promptecho.train.prompts import TrainingPrompt
    from promptecho.train.reward_list import weighted_reward, with_models
    from promptecho.video import refuse_video
    from promptecho.vlm import load_vlm

    if out.suffix != ".html":
        raise ConfigError(f"--out {out}: must end in .html")
    check_blank(blank)
    experiment = job_config(config)
    folders = given_files("IMAGES", images)
    name = run or folders[-1].absolute().parts[-3]
    if run is not None and run not in experiment.runs:
        raise ConfigError(f"--run {run}: no such run in {config} (known: {', '.join(experiment.runs) or 'none'})")
    trained = name in experiment.runs
    rewards = run_rewards(experiment, name) if trained else experiment.rewards
    index, entry = next(((i, one) for i, one in enumerate(rewards) if one.name == "echo"), (0, RewardSection()))
    section = reward_vlm(experiment, entry, name if trained else None)
    assert section is not None, "echo needs one"
    where = choose_device(device)
    memory = MemoryAdvice(where, partial(reward_keys, batch_size, section.dtype))
    with plugins_of(None), contextlib.ExitStack() as stack:
        opened = [stack.enter_context(unpacked(folder)) for folder in folders]
        columns = thin(read_columns(opened, scores), max_columns)
        chosen = choose(columns, prompts, image_index)
        for key in chosen.keys:
            for column in columns:
                refuse_video(column.images[key].path, "figures words")
        texts = {key[0]: columns[0].images[key].prompt for key in chosen.keys}
        entry = entry.model_copy(update={"batch_size": batch_size})
        read = weighted_reward(experiment, index, entry, [TrainingPrompt(*one) for one in texts.items()])
        with memory(Phase.LOAD_VLM):
            vlm = load_vlm(
                section.path,
                dtype=section.dtype,
                device=device,
                revision=section.revision,
                trust_remote_code=section.trust_remote_code,
            )
        (built,) = with_models([read], [vlm], torch.device(where))
        assert built.reward is not None, "it was just built"
        with memory(Phase.REWARD):
            paths = write_sample_words(
                columns,
                chosen,
                built.reward.function,
                out.with_suffix(""),
                blank=blank,
                labels=read.labels,
                image_set=folders[0].absolute().name,
            )
    for path in paths:
        typer.echo(str(path))
