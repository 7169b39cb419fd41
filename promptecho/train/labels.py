"""Labels that a reward brings for the training prompts. Imports nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from promptecho.config import ExperimentConfig, run_rewards, run_training
from promptecho.config.rewards import RewardSection
from promptecho.errors import DataError, listed
from promptecho.train.prompt_sizes import in_words, sizes_by_image
from promptecho.train.prompts import PromptUse, TrainingPrompt


def prompt_use(
    config: ExperimentConfig, run: str, captions: str | Path, placed: Callable[[str], str] = str
) -> PromptUse:
    """What the iterations of `run` use, from captions.h5, the sizes beside it where they are asked for, and the label
    files (`placed` says where those are).

    Raises:
        DataError: a file is missing or faulty.
    """
    from promptecho.captions.sources import hashes_of, kept_sources
    from promptecho.captions.store import load_training_captions

    prompts = load_training_captions(captions)
    rewards = [
        entry if entry.label is None else entry.model_copy(update={"label": placed(entry.label)})
        for entry in run_rewards(config, run)
    ]
    labels = [load_labels(entry, index, prompts) for index, entry in enumerate(rewards)]
    training, t2i = run_training(config, run), config.models.t2i
    used = [one for one in labels if one is not None]
    used += in_words(training, t2i, sizes_by_image(training, t2i, captions, prompts))
    used += hashes_of(kept_sources(captions))
    return PromptUse(prompts, used, training.seed, training.prompts_per_iteration)


def load_labels(entry: RewardSection, index: int, prompts: Sequence[TrainingPrompt]) -> dict[str, str] | None:
    """Labels by prompt id of a reward that brings its own; None where the prompt is the label.

    A file of rows (promptecho/text_files.py). A label that is not a text is written as JSON, as a VLM that is asked for
    JSON would write it.

    Raises:
        DataError: a line without data_id and label, an id twice, or a prompt without a label; names them.
    """
    if entry.label is None:
        return None
    from promptecho.captions.prompts import ID_KEYS
    from promptecho.text_files import read_rows, value_of

    path = Path(entry.label)
    labels: dict[str, str] = {}
    problems = []
    for number, row in read_rows(path):
        named, label = value_of(row, ID_KEYS), (value_of(row, ("label",)) or (None, None))[1]
        if named is None or not label or (isinstance(label, str) and not label.strip()):
            problems.append(f"{path}:{number}: needs data_id and a label that is not empty")
        elif str(named[1]) in labels:
            problems.append(f"{path}:{number}: {named[1]} has a label already; keep one of them")
        else:
            labels[str(named[1])] = label if isinstance(label, str) else json.dumps(label, ensure_ascii=False)
    if problems:
        raise DataError(listed(problems, "faulty labels"))
    missing = [prompt.prompt_id for prompt in prompts if prompt.prompt_id not in labels]
    if missing:
        raise DataError(
            f"{path}: no label for {len(missing)} of {len(prompts)} prompts of rewards.{index} "
            f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}); add them, or take those captions out"
        )
    return labels
