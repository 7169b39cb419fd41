"""The same prompts from the same noise, checkpoint by checkpoint, from images that the workflow has generated.

An image's noise is a function of the image set's seed, its prompt and its index, so images below each other differ by
the weights alone. Prompts are not chosen by eye: where the images have verdicts, wins, losses and ties of the last
checkpoint against the first have the shares that they have in the whole set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptecho.archives import ImageFile, ImageStore
from promptecho.config.benchmarks import benchmark_named, load_part
from promptecho.errors import DataError
from promptecho.files import read_jsonl
from promptecho.scores import Scores, read_scores

Key = tuple[str, int]  # prompt id, image index

PLURAL = {"win": "wins", "loss": "losses", "tie": "ties"}
SIDES = tuple(PLURAL)  # of the last column against the first; also the order in the figure


@dataclass(frozen=True)
class Listed:
    """One generated image."""

    prompt: str
    path: ImageFile


@dataclass(frozen=True)
class CheckpointImages:
    """All images of one checkpoint, and their verdicts where they have been scored (None: the judging failed).

    `difference`: the verdicts compare with the baseline already, from -1 (lost) to +1 (won).
    """

    label: str
    images: dict[Key, Listed]
    verdicts: dict[Key, float | None] = field(default_factory=dict)
    difference: bool = False


@dataclass(frozen=True)
class Choice:
    """Images to be shown, by side and then by prompt id, and how many prompts there are of each side.

    `sides` and `counts` are empty where the images have no verdicts; `failed` prompts have one at neither checkpoint or
    at one of them only, and are not shown.
    """

    keys: list[Key]
    sides: dict[Key, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    failed: int = 0
    title: str = ""


def read_column(folder: Path, scores: Path | None = None) -> CheckpointImages:
    """Read the listings of an image folder, results/E/images/R/N/SET, and the score file of the same checkpoint.

    Raises:
        DataError: no listing, an image twice, or scores of another checkpoint.
    """
    folder = folder.absolute()
    run, step = folder.parts[-3:-1]
    images: dict[Key, Listed] = {}
    store = ImageStore(folder)
    for listing in sorted(folder.glob("shards/*.jsonl")):
        for row in read_jsonl(listing):
            try:
                key, listed = (row["prompt_id"], row["image_index"]), Listed(row["prompt"], store.find(row["filename"]))
            except KeyError as error:
                raise DataError(f"{listing}: a row without {error}; generate the images again") from None
            if key in images:
                raise DataError(f"{listing}: prompt {key[0]}, image {key[1]} is listed twice; generate again")
            images[key] = listed
    if not images:
        raise DataError(f"{folder}: no shards/*.jsonl that lists images; generate them first")
    verdicts, difference = {}, False
    if scores is not None:
        read = read_scores(scores)
        if (read.provenance.run, str(read.provenance.step)) != (run, step):
            told = f"{read.provenance.run} at {read.provenance.step}"
            raise DataError(f"{scores}: scores of {told}, the images are of {run} at {step}")
        verdicts, difference = verdicts_of(read), benchmark_named(read.provenance.scorer).pairwise
    return CheckpointImages(run if step == "0" else f"{run} @ {step}", images, verdicts, difference)


def verdicts_of(scores: Scores) -> dict[Key, float | None]:
    """What a score file says of each image: its outcome, or None where all of its judging failed. Where items are no
    images, the benchmark's descriptor says how to read the verdict (`verdicts`)."""
    scorer = scores.provenance.scorer
    if benchmark_named(scorer).verdicts:
        return load_part(scorer, "verdicts")(scores.items)
    return {(item.prompt_id, item.image_index): item.outcome for item in scores.items}


def choose(columns: Sequence[CheckpointImages], n: int, image_index: int = 0) -> Choice:
    """`n` prompts (or all, if fewer), the same image of each: a function of prompt ids and verdicts, never of looks.

    Without verdicts: evenly spread over the ids. With them: so many wins, losses and ties that their shares are those
    of all prompts (largest remainder); within each side evenly spread over the prompts, ordered by verdict and id.

    Raises:
        DataError: an image is missing in a column, or belongs to another prompt there.
    """
    keys = sorted(key for key in columns[0].images if key[1] == image_index)
    if not keys:
        raise DataError(f"{columns[0].label}: no images with index {image_index}")
    sides = {key: side for key in keys if (side := _side(columns, key))}
    if not sides:
        chosen = Choice(spread(keys, n), title=f"{min(n, len(keys))} of {len(keys)} prompts, evenly spread by id")
    else:
        members = {
            side: sorted((key for key in sides if sides[key] == side), key=lambda key: (_last(columns, key), key))
            for side in SIDES
        }
        counts = {side: len(found) for side, found in members.items()}
        parts = {side: sorted(spread(members[side], k)) for side, k in shares(counts, min(n, len(sides))).items()}
        shown = [key for side in SIDES for key in parts[side]]
        dealt = {side: len(found) for side, found in parts.items()}
        title = _title(columns, counts, dealt, len(keys) - len(sides), keys)
        chosen = Choice(shown, {key: sides[key] for key in shown}, counts, len(keys) - len(sides), title)
    check(columns, chosen.keys)
    return chosen


def _side(columns: Sequence[CheckpointImages], key: Key) -> str:
    """Win, loss or tie of the last column against the first; empty where one of them has no verdict."""
    last, first = columns[-1].verdicts.get(key), columns[0].verdicts.get(key)
    if columns[-1].difference:
        first = 0.0
    if last is None or first is None:
        return ""
    return "win" if last > first else "loss" if last < first else "tie"


def _last(columns: Sequence[CheckpointImages], key: Key) -> float:
    return columns[-1].verdicts[key] or 0.0


def shares(counts: dict[str, int], n: int) -> dict[str, int]:
    """`n` dealt out in the proportions of `counts` (largest remainder; at equal remainders the earlier name)."""
    total = sum(counts.values())
    dealt = {name: n * count // total for name, count in counts.items()}
    rest = sorted(counts, key=lambda name: -(n * counts[name] % total))
    for name in rest[: n - sum(dealt.values())]:
        dealt[name] += 1
    return dealt


def spread(keys: Sequence[Key], n: int) -> list[Key]:
    """`n` of the keys (or all, if fewer), at even distances."""
    n = min(n, len(keys))
    return [keys[(2 * k + 1) * len(keys) // (2 * n)] for k in range(n)]


def _title(
    columns: Sequence[CheckpointImages], counts: dict[str, int], shown: dict[str, int], failed: int, keys: Sequence[Key]
) -> str:
    """Proportions in the whole set, and how many of each are shown; which image, where prompts have several."""
    total = sum(counts.values())
    told = ", ".join(f"{_counted(side, count)} ({count / total:.1%})" for side, count in counts.items())
    against = "the baseline" if columns[-1].difference else columns[0].label
    lost = f", {failed} more without a verdict" if failed else ""
    which = f"{total} prompts" + (f" (image {keys[0][1]} of each)" if len(columns[0].images) > len(keys) else "")
    here = ", ".join(_counted(side, shown[side]) for side in SIDES)
    return f"{columns[-1].label} against {against} on {which}: {told}{lost}. Shown in proportion: {here}."


def _counted(side: str, count: int) -> str:
    return f"{count} {side if count == 1 else PLURAL[side]}"


def check(columns: Sequence[CheckpointImages], keys: Sequence[Key]) -> None:
    """Whether all columns have these images, of the same prompts.

    Raises:
        DataError: an image is missing in a column, or belongs to another prompt there.
    """
    for key in keys:
        for column in columns:
            if key not in column.images:
                raise DataError(f"{column.label}: prompt {key[0]}, image {key[1]} is missing; generate all shards")
            if column.images[key].prompt != columns[0].images[key].prompt:
                raise DataError(
                    f"{column.label}: prompt {key[0]} is {column.images[key].prompt!r}, but "
                    f"{columns[0].images[key].prompt!r} in {columns[0].label}; generate both from one prompt set"
                )


def thin(columns: list[CheckpointImages], most: int) -> list[CheckpointImages]:
    """At most `most` columns (two or more): the first, the last and an even choice between them."""
    if len(columns) <= most:
        return columns
    return [columns[k * (len(columns) - 1) // (most - 1)] for k in range(most)]


def told(columns: Sequence[CheckpointImages], chosen: Choice) -> dict[str, Any]:
    """What the figure shows, as JSON-able values."""
    return {
        "title": chosen.title,
        "columns": [column.label for column in columns],
        "counts": chosen.counts,
        "without_verdict": chosen.failed,
        "shown": [
            {
                "prompt_id": key[0],
                "image_index": key[1],
                "prompt": columns[0].images[key].prompt,
                "side": chosen.sides.get(key),
                "verdicts": [column.verdicts.get(key) for column in columns],
            }
            for key in chosen.keys
        ],
    }
