"""What generation asks of a benchmark's image folder: a further layout is one more file with this protocol."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from promptecho.archives import ImageFile
from promptecho.errors import DataError

SHOWN = 5  # missing images named in an error before "and n more"


class Layout(Protocol):
    """The folder of one image set: which prompts, and where each image and what describes it lies.

    Built as `Layout(prompts, root, images_per_prompt, limit)` from the prompt file; raises DataError where that is
    faulty. `ids[p]` names prompt p in scores and fixes its noise, `texts[p]` is what the model gets. `chosen` are the
    prompts whose images are wanted: all, or the first `limit` (limit.py). Images of others may be there: they are kept.
    """

    ids: list[str]
    texts: list[str]
    chosen: list[int]

    def image_path(self, p: int, i: int) -> Path:
        """Where image i of prompt p lies; inside the root whatever the id holds."""
        ...

    def remove_stale(self) -> None:
        """Delete what another prompt set or a larger number of images left behind. Shards that run at the same time
        agree on it, so whoever comes first does it."""
        ...

    def describe(self, prompts: Sequence[int]) -> None:
        """Write what the evaluator reads beside the images; `prompts` are those whose images a shard finished as files,
        none where they are in an archive. Shards may write the same file: its content is the same."""
        ...


@runtime_checkable
class DescribesPrompts(Protocol):
    """A `Layout` with files for each prompt, which go into the archive of a shard together with its images."""

    def prompt_files(self, p: int) -> dict[str, bytes]:
        """What lies beside the images of prompt p: names relative to the root, and contents."""
        ...


def missing_images(root: Path, images: Iterable[ImageFile]) -> list[str]:
    """Of images below `root`, the names of those that are not there."""
    return [name_below(root, path) for path in images if isinstance(path, Path) and not path.is_file()]


def name_below(root: Path, image: ImageFile) -> str:
    """The name of an image in its folder, which it has in an archive, too."""
    return str(image.relative_to(root)) if isinstance(image, Path) else image.member


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


def refuse_mixed_sizes(root: Path, images: Iterable[ImageFile]) -> None:
    """Raise if images of one set differ in size: some were made with other settings, or are not of this set, and a
    score over all of them would be of neither. Files that are not images are handled by the scorer.

    Raises:
        DataError: names the sizes, and images of the rarer ones.
    """
    from PIL import Image

    sizes: dict[tuple[int, int], list[ImageFile]] = {}
    for path in dict.fromkeys(images):
        try:
            with path.open("rb") as file, Image.open(file) as opened:  # the head of the file only
                sizes.setdefault(opened.size, []).append(path)
        except Exception:  # as in `load_image`, which names it
            continue
    if len(sizes) > 1:
        counts = Counter({size: len(paths) for size, paths in sizes.items()})
        (usual, _), *others = counts.most_common()
        odd = [path for size, _ in others for path in sizes[size]]
        told = ", ".join(f"{count} of {width}x{height}" for (width, height), count in counts.most_common(SHOWN))
        names = ", ".join(name_below(root, path) for path in odd[:SHOWN])
        more = f" and {len(odd) - SHOWN} more" if len(odd) > SHOWN else ""
        raise DataError(
            f"{root}: images of several sizes in one image set ({told}): not {usual[0]}x{usual[1]} are {names}{more}; "
            "make all in one size, or give each size an image set of its own"
        )
