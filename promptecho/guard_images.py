"""Score the images of a checkpoint by a guard; what was scored is kept, so that an interruption loses one piece."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from promptecho.archives import ImageFile
from promptecho.errors import DataError, RewardError
from promptecho.figures.samples import read_column
from promptecho.files import digest, read_json, write_json
from promptecho.images import load_image
from promptecho.progress import progress
from promptecho.rewards.make import BuiltReward
from promptecho.scores import ScoreItem
from promptecho.video import refuse_video

PIECE = 64  # images


class GuardedImage(NamedTuple):
    """An image with its prompt."""

    prompt_id: str
    image_index: int
    prompt: str
    path: ImageFile


def guarded_images(folder: Path) -> list[GuardedImage]:
    """The images that the listings shards/*.jsonl of an image folder name, by prompt id and index.

    Raises:
        DataError: no listing, or an image twice.
    """
    listed = read_column(folder).images
    return [GuardedImage(*key, listed[key].prompt, listed[key].path) for key in sorted(listed)]


def prompts_digest(images: Sequence[GuardedImage]) -> str:
    """Of ids and texts."""
    return digest(sorted({(image.prompt_id, image.prompt) for image in images}))


def score_images(
    title: str, reward: BuiltReward, images: Sequence[GuardedImage], work: Path, per_batch: int, *, settings: str
) -> list[ScoreItem]:
    """An item for each image, failed where the reward has none for it, or the image can't be decoded.

    Pieces of fixed size and order are files in `work`, named after what was asked and of which reward. A reward depends
    on its image and prompt alone, so that items are the same however often it was interrupted.

    Args:
        title: the guard's column.
        per_batch: images that the reward takes together; pieces are whole batches.
        settings: digest of what decides the reward, so that two guards may share `work`.

    Raises:
        DataError: an image is missing, or no image has a reward.
        RewardError: the reward fails, or is not finite where it may not be missing; names prompt and image.
    """
    size = per_batch * max(1, PIECE // per_batch)
    items: list[ScoreItem] = []
    with progress(f"guard {title}", len(images), "images") as bar:
        for start in range(0, len(images), size):
            piece = images[start : start + size]
            rewards = _piece(title, reward, piece, work, settings)
            for image, value in zip(piece, rewards, strict=True):
                items.append(
                    ScoreItem(
                        prompt_id=image.prompt_id,
                        image_index=image.image_index,
                        group="all",
                        outcome=value,
                        failed=value is None,
                    )  # fmt: skip
                )
            bar.advance(len(piece))
    if all(item.failed for item in items):
        raise DataError(f"guard {title}: no image has a reward; have a look at one with promptecho reward")
    return items


def _piece(
    title: str, reward: BuiltReward, piece: Sequence[GuardedImage], work: Path, settings: str
) -> list[float | None]:
    contents = [image.path.read_bytes() for image in piece]
    asked = [[*image[:3], hashlib.sha256(content).hexdigest()] for image, content in zip(piece, contents, strict=True)]
    kept = work / f"{digest([settings, asked])}.json"
    with suppress(DataError):
        value: Any = read_json(kept) if kept.is_file() else None
        if isinstance(value, dict) and len(value.get("rewards", ())) == len(piece):
            return value["rewards"]
    for image in piece:
        refuse_video(image.path, f"guard {title}")
    readable, pictures = [], []
    for place, image in enumerate(piece):
        try:
            picture = load_image(image.path, fix="delete it and rerun the generation")
        except DataError as error:  # a failed item, as in benchmarks
            print(f"promptecho: WARNING: guard {title}: prompt {image.prompt_id}: {error}", file=sys.stderr, flush=True)
            continue
        picture.info["path"] = f"image {image.image_index}"  # of all checkpoints alike: what is sampled follows from it
        readable.append(place)
        pictures.append(picture)
    rewards: list[float | None] = [None] * len(piece)
    if pictures:
        asking = [piece[place] for place in readable]
        found = reward(pictures, [image.prompt for image in asking], [image.prompt_id for image in asking])
        for place, value in zip(readable, found, strict=True):
            rewards[place] = _finite(title, reward, piece[place], value)
    write_json(kept, {"rewards": rewards})
    return rewards


def _finite(title: str, reward: BuiltReward, image: GuardedImage, value: float) -> float | None:
    if math.isfinite(value):
        return value
    if math.isnan(value) and reward.may_be_missing:
        return None
    raise RewardError(
        f"guard {title}: prompt {image.prompt_id}, {image.path}: the reward is {value}; look at the image, and "
        "try dtype float32"
    )
