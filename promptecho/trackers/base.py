"""What every tracker is given, and what it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL.Image import Image


@dataclass(frozen=True)
class TrackedRun:
    """The run that a tracker is to show.

    `id` is of letters, digits, `-`, `_` and `.`, and the same for all segments of one training, also after an
    interruption; another training of that name has another one. `resumed`: this tracker has been given a part of it
    before. `start_iteration`: what comes from now on is of later iterations; -1: from iteration 0 on.
    `folder` is the tracker's own for this run; it exists. `config` holds the models, rewards and training keys of the
    run, and no secrets. `options` are the tracker's settings.
    """

    experiment: str
    run: str
    id: str
    resumed: bool
    start_iteration: int
    folder: Path
    config: Mapping[str, Any]
    options: Any = None


@dataclass(frozen=True)
class TrackedImage:
    """An image of `prompt`, at most 512 pixels wide and high. Images of one prompt in one run have one `prompt_id` and
    were made from the same noise."""

    prompt_id: str
    prompt: str
    image: Image


class Tracker(Protocol):
    """What `TrackerKind.build` returns. Its methods are called by one thread, which is not the one that trains.

    An exception of any of them ends this tracker for the segment: it is told once, and training goes on.
    """

    def log(self, row: Mapping[str, Any]) -> None:
        """Write the row of one iteration, `row["iteration"]`; iterations increase. Values are numbers, and a few
        texts."""
        ...

    def log_images(self, iteration: int, images: Sequence[TrackedImage]) -> None:
        """Write the sample grid of an iteration, after its row."""
        ...

    def close(self) -> None:
        """Write what is left. The run may go on in another process later."""
        ...
