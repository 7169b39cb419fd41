"""Which of several sizes a prompt has from the image that it captions (`training.size_by: image`). Imports nothing
heavy."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from promptecho.config.buckets import nearest_size
from promptecho.config.image_sizes import Sized
from promptecho.config.training import TrainingConfig
from promptecho.errors import DataError, listed
from promptecho.train.prompts import TrainingPrompt

SIZES_FILE = "image_sizes.jsonl"  # beside captions.h5
SIZES = "image sizes file"  # its name among a state's digests


def sizes_by_image(
    training: TrainingConfig, t2i: Sized, captions: str | Path, prompts: Iterable[TrainingPrompt]
) -> dict[str, int] | None:
    """Prompt id -> which of the training's sizes is nearest in aspect ratio to the image that the prompt captions; None
    where sizes are drawn, or all images have one.

    Args:
        captions: captions.h5, beside which image_sizes.jsonl lies.

    Raises:
        DataError: that file is missing or faulty, or lacks prompts; all are named.
    """
    if training.size_by != "image":
        return None
    from promptecho.captions.image_sizes import read_sizes

    path = Path(captions).with_name(SIZES_FILE)
    if not path.is_file():
        raise DataError(
            f"{path}: not there, and training.size_by: image takes each prompt's size from it; make it with "
            "`promptecho caption sizes`"
        )
    known, sizes = read_sizes(path), tuple(training.image_sizes(t2i))
    found: dict[str, int] = {}
    missing = []
    for prompt in prompts:
        if prompt.prompt_id in known:
            width, height = known[prompt.prompt_id]
            found[prompt.prompt_id] = nearest_size(sizes, height, width)
        else:
            missing.append(f"{path}: has no size of {prompt.prompt_id}; make it again: `promptecho caption sizes`")
    if missing:
        raise DataError(listed(missing, "prompts without a size"))
    return found


def in_words(training: TrainingConfig, t2i: Sized, by_image: dict[str, int] | None) -> list[dict[str, str]]:
    """The sizes among what iterations use, as `PromptUse` has labels: none where the run's seed decides them."""
    if by_image is None:
        return []
    names = [f"{height}x{width}" for height, width in training.image_sizes(t2i)]
    return [{prompt_id: names[number] for prompt_id, number in by_image.items()}]
