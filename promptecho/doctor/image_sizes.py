"""Whether each prompt has the size that `training.size_by: image` takes, and how many prompts have which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from promptecho.config import ExperimentConfig
from promptecho.config.buckets import nearest_size
from promptecho.config.image_sizes import runs_by_image
from promptecho.doctor.finding import Finding, fine, problem, unchecked
from promptecho.doctor.preflight import JOBS, Preflight
from promptecho.errors import DataError

SAMPLE = 1000  # images whose heads are looked at


def unsized_prompts(config: ExperimentConfig) -> list[str]:
    """What `captions.prompts` lacks for runs with `size_by: image`, where that file is on this machine."""
    prompts = config.captions.prompts
    if prompts is None or not runs_by_image(config.runs) or not Path(prompts).is_file():
        return []
    from promptecho.captions.image_sizes import sizes_of_prompts

    try:
        sizes_of_prompts(prompts)
    except DataError as error:
        return [f"captions.prompts: {error}"]
    return []


def image_sizes(preflight: Preflight) -> Iterator[Finding]:
    """Prompts without a size, and how many prompts, or how many of the first images, each size gets."""
    config = preflight.config
    runs = [name for name in preflight.names("train") if name in runs_by_image(config.runs)]
    if not runs:
        return
    if problems := unsized_prompts(config):
        fix = "give each prompt its width and height, or set training.size_by: draw"
        yield from (problem(text, "captions (rule captions)", fix) for text in problems)
        return
    try:
        told, sizes = _known_sizes(config)
    except DataError as error:  # the checks of images say what is wrong with them
        yield unchecked(f"sizes of the captioned images: {error}", JOBS["train"], "see to the images first")
        return
    for name in runs:
        listed = tuple(config.runs[name].image_sizes(config.models.t2i))
        counts = Counter(nearest_size(listed, height, width) for width, height in sizes)
        shares = ", ".join(f"{h}x{w} {counts[k]}" for k, (h, w) in enumerate(listed))
        yield fine(f"runs.{name}: prompts by size (height x width), of {told}: {shares}")


def _known_sizes(config: ExperimentConfig) -> tuple[str, Iterable[tuple[int, int]]]:
    """Widths and heights of all prompts, or of some images, and of which in words."""
    from promptecho.captions.image_sizes import sizes_of_images, sizes_of_prompts
    from promptecho.captions.inputs import list_images

    captions = config.captions
    if captions.prompts is not None:
        found = sizes_of_prompts(captions.prompts)
        return f"{len(found)} prompts", found.values()
    if captions.images is None:
        return "no image: they are rendered, and all of one size", []
    items = list_images(captions.images)
    some = items[:: -(-len(items) // SAMPLE)]  # all over the list, as neighbours are often alike
    found = sizes_of_images([item.image_id for item in some], some)
    return f"{len(found)} of {len(items)} images", found.values()
