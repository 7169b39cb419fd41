"""What generation asks of a benchmark's image folder: a further layout is one more file with this protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from promptecho.errors import DataError

SHOWN = 5  # missing images named in an error before "and n more"


class Layout(Protocol):
    """The folder of one image set: which prompts, and where each image and what describes it lies.

    Built as `Layout(prompts, root, images_per_prompt)` from the prompt file; raises DataError where that is faulty.
    `ids[p]` names prompt p in scores and fixes its noise, `texts[p]` is what the model gets.
    """

    ids: list[str]
    texts: list[str]

    def image_path(self, p: int, i: int) -> Path:
        """Where image i of prompt p lies; inside the root whatever the id holds."""
        ...

    def remove_stale(self) -> None:
        """Delete what another prompt set or a larger number of images left behind. Shards that run at the same time
        agree on it, so whoever comes first does it."""
        ...

    def describe(self, prompts: Sequence[int]) -> None:
        """Write what the evaluator reads beside the images; `prompts` are those whose images a shard finished. Shards
        may write the same file: its content is the same."""
        ...


def refuse_missing(root: Path, missing: list[str], total: int) -> None:
    """Raise if images are missing: they would silently leave the denominator of every score.

    Raises:
        DataError: `missing` (paths as they should be shown) is not empty.
    """
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise DataError(
            f"{root}: {len(missing)} of {total} images missing: {', '.join(missing[:SHOWN])}{more}; "
            "rerun the generation"
        )
