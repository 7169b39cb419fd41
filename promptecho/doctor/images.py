"""The images to caption: whether they are there, how many, how large, and whether they can be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from promptecho.captions.inputs import ImageItem, image_list, look_at
from promptecho.doctor.finding import Finding, fine, problem, warning
from promptecho.doctor.preflight import JOBS, Preflight
from promptecho.errors import DataError, counted
from promptecho.images import load_image

SAMPLE = 200  # images that are decoded
SHOWN = 3


def images_there(preflight: Preflight) -> Iterator[Finding]:
    """Whether there are images at all; reads no image."""
    if (source := _source(preflight)) is None:
        return
    try:
        listed = image_list(source)
    except DataError as error:
        yield problem(f"captions.images: {error}", JOBS["caption"], "put the images there, or correct captions.images")
        return
    looked = look_at(listed.items)
    absent = [item.image_id for item in looked if item.size is None]
    if absent:
        named = ", ".join(absent[:SHOWN])
        yield problem(
            f"captions.images: {source}: {len(absent)} of {len(looked)} images are not there: {named}", JOBS["caption"],
            "bring these files, or take them out of the list",
        )  # fmt: skip
    empty = [item.image_id for item in looked if item.size == 0]
    if empty:
        named = ", ".join(empty[:SHOWN])
        most = preflight.config.captions.max_rejected_share
        told = f"captions.images: {source}: {counted(len(empty), 'image is', 'images are')} an empty file: {named}"
        if len(empty) > most * len(looked):
            told += f"; up to a share of {most:g} is left out (captions.max_rejected_share)"
            yield problem(told, "merging the captions (rule captions)", "copy these files again, or remove them")
        else:
            yield warning(told, JOBS["caption"], "copy these files again, or remove them")
    total = sum(item.size or 0 for item in looked)
    yield fine(f"{source}: {counted(len(looked), 'image')}, {total / 1e9:.3g} GB")


def images_readable(preflight: Preflight) -> Iterator[Finding]:
    """Decode some of the images, evenly spread over the list, as captioning will."""
    if (source := _source(preflight)) is None:
        return
    try:
        items = [item for item in look_at(image_list(source).items) if item.size]
    except DataError:  # told by `images_there`
        return
    chosen = _spread(items, SAMPLE)
    sizes, bad = [], []
    for item in chosen:
        try:
            sizes.append(load_image(item.path).size)
        except DataError as error:
            bad.append(str(error))
    which = "all" if len(chosen) == len(items) else f"a sample of {len(chosen)}, evenly spread,"
    most = preflight.config.captions.max_rejected_share
    for line in bad[:SHOWN]:
        if len(bad) > most * len(chosen):
            yield problem(
                f"captions.images: {line} ({len(bad)} of {len(chosen)} that were read cannot be captioned)",
                "merging the captions, after all images were captioned (rule captions)",
                f"mend or remove these images; up to a share of {most:g} is left out (captions.max_rejected_share)",
            )
        else:
            yield warning(f"captions.images: {line}", JOBS["caption"], "it gets no caption; replace it or remove it")
    if len(bad) > SHOWN:
        told = f"captions.images: {len(bad) - SHOWN} more of the images that were read cannot be captioned"
        yield warning(told, JOBS["caption"], "the first of them are named above")
    if sizes:
        sizes.sort(key=lambda size: size[0] * size[1])
        small, middle, large = sizes[0], sizes[len(sizes) // 2], sizes[-1]
        told = f"{small[0]}x{small[1]} to {large[0]}x{large[1]} pixels, the middle one {middle[0]}x{middle[1]}"
        yield fine(f"{source}: {which} of {counted(len(items), 'image')} read: {len(sizes)} are readable, {told}")


def _source(preflight: Preflight) -> str | None:
    """Where the images to caption are; None where none are to be captioned, or the workflow renders them."""
    captions = preflight.config.captions
    if "caption" not in preflight.stages or captions.prompts is not None or captions.shapes is not None:
        return None
    if (preflight.results / "captions/captions.h5").is_file() and not Path(captions.images or "").exists():
        return None  # captioned already
    return captions.images


def _spread(items: list[ImageItem], most: int) -> list[ImageItem]:
    """At most so many, evenly spread over the list."""
    count = min(most, len(items))
    return [items[i * len(items) // count] for i in range(count)]
