"""Pairs of images to compare: a candidate's and a baseline's image of the same caption, from two image folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from promptecho.archives import ImageFile
from promptecho.benchmarks.captions.layout import list_images, tag_of
from promptecho.benchmarks.captions.prompts import CaptionPrompt, read_prompts
from promptecho.benchmarks.limit import first_prompts
from promptecho.benchmarks.scoring import ImageFolder
from promptecho.errors import ConfigError, DataError, counted
from promptecho.provenance import Limit

SHOWN = 60  # characters of a caption that an error shows


@dataclass(frozen=True)
class ImagePair:
    """One comparison; `image_index` counts the images of a prompt in each folder."""

    prompt: CaptionPrompt
    image_index: int
    candidate: ImageFile
    baseline: ImageFile


def list_pairs(folder: ImageFolder) -> tuple[list[ImagePair], Limit | None]:
    """The images of `folder.root` and `folder.baseline` by data_id and image index, in the order of `root`; and its
    limit where that leaves prompts out.

    Deviation: the authors' script compares the ids that both folders hold; here a difference is an error, because
    comparisons that are left out would change the rates unseen.

    Raises:
        ConfigError: no baseline is given, or it is the folder itself.
        DataError: a folder is not whole (captions.layout.list_images), or they hold different ids, captions or
            numbers of images.
    """
    if folder.baseline is None:
        raise ConfigError(
            f"{folder.root}: pairs need the images of a second run; set the benchmark's baseline or give --baseline"
        )
    root, baseline = Path(folder.root), Path(folder.baseline)
    if root.resolve() == baseline.resolve():
        raise ConfigError(f"{root}: is compared with itself; give the images of another run as baseline")
    prompts = read_prompts(folder.prompts) if folder.prompts else None
    only, limit = first_prompts(prompts, tag_of, folder.limit)
    sides = [
        {(e.prompt.data_id, e.image_index): e for e in list_images(side, prompts, folder.images_per_prompt, only)}
        for side in (root, baseline)
    ]
    fix = "generate both on the same prompts with as many images each"
    if lone := sorted(sides[0].keys() ^ sides[1].keys()):
        (data_id, index), holder = lone[0], root if lone[0] in sides[0] else baseline
        raise DataError(
            f"{root} and {baseline}: {counted(len(lone), 'image is', 'images are')} in one folder only, e.g. prompt "
            f"{data_id!r}, image {index} only in {holder}; {fix}"
        )
    for key, entry in sides[0].items():
        if (theirs := sides[1][key].prompt.caption) != entry.prompt.caption:
            shown = " and ".join(repr(text[:SHOWN]) for text in (entry.prompt.caption, theirs))
            raise DataError(f"{root} and {baseline}: prompt {key[0]!r} has different captions: {shown}; {fix}")
    return [ImagePair(e.prompt, e.image_index, e.path, sides[1][key].path) for key, e in sides[0].items()], limit
