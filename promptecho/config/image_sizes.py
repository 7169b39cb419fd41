"""How large images are, and which sizes a model cannot make, as far as its folder tells: no model is loaded for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from promptecho.config.described import described_as
from promptecho.config.families import Family, family_named
from promptecho.errors import DataError
from promptecho.files import read_json
from promptecho.shipped import model_path


class Sized(Protocol):
    """What says how large images are where nothing else does."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...


def size_problems(sections: Mapping[str, Any]) -> dict[str, str]:
    """Sizes in an experiment that its text-to-image model cannot make, by the key where they are written. The family's
    own size, which nobody needs to write, is none of them."""
    t2i = sections["models"].t2i
    family, folder = family_named(t2i.family), model_path(t2i.path, "t2i")

    def problem_of(size: tuple[int, int], keys: str = "height and width") -> str:
        problem = None if size == (family.height, family.width) else size_problem(family, folder, *size)
        return f"{problem}; correct {keys}" if problem else ""

    if problem := problem_of((t2i.height, t2i.width)):
        return {"models.t2i.height": problem}
    found = {}
    for name, training in (sections.get("runs") or {}).items():
        sizes = training.image_sizes(t2i)
        if training.buckets is not None:
            faulty = (problem_of(size, "multiple, pixels or max_ratio") for size in sizes)
            if problem := _too_few(sizes) or next(filter(None, faulty), ""):
                found["training.buckets"] = f"{problem} (run {name})"
            continue
        for index, size in enumerate(sizes):
            key = "height" if training.sizes is None else f"sizes.{index}.height"
            if problem := problem_of(size):
                found[f"training.{key}"] = f"{problem} (run {name})"
    for name, image_set in (sections.get("image_sets") or {}).items():
        if problem := problem_of(image_set.size(t2i)):
            found[f"image_sets.{name}.height"] = problem
    return found


def runs_by_image(runs: Mapping[str, Any]) -> list[str]:
    """The runs whose prompts have the sizes of the images that they caption (`training.size_by: image`)."""
    return [name for name, training in runs.items() if training.size_by == "image"]


def bucket_lists(runs: Mapping[str, Any], t2i: Sized) -> list[str]:
    """A line for each list of buckets that runs have, with the sizes that it comes to."""
    found: dict[str, list[str]] = {}
    for name, training in runs.items():
        if training.buckets is not None:
            sizes = ", ".join(f"{height}x{width}" for height, width in training.image_sizes(t2i))
            found.setdefault(sizes, []).append(name)
    return [
        f"training.buckets of {', '.join(names)}: {len(sizes.split(', '))} sizes (height x width): {sizes}"
        for sizes, names in found.items()
    ]


def _too_few(buckets: list[tuple[int, int]]) -> str:
    """Why so few buckets are none."""
    if not buckets:
        return "no size has so few pixels; raise pixels, or lower multiple"
    if len(buckets) == 1:
        height, width = buckets[0]
        return (
            f"come to one size, {height} x {width}; raise max_ratio, lower multiple, or give height and width instead"
        )
    return ""


def size_problem(family: Family, folder: str | Path, height: int, width: int) -> str | None:
    """Why the model in `folder` cannot make images of so many pixels; None where nothing there speaks against it."""
    vae = _vae_of(family, folder)
    widths = vae.get(family.vae_widths) if family.vae_widths else None
    if isinstance(scale := vae.get("scale_factor_spatial"), int):  # of VAEs for video
        step = 2 * scale
    elif isinstance(widths, list) and widths:
        step = 2 * 2 ** (len(widths) - 1)
    else:
        return None
    if height % step or width % step:
        near = " x ".join(str(max(step, round(side / step) * step)) for side in (height, width))
        return f"{height} x {width} pixels: both must be multiples of {step}, such as {near}"
    known = _config_of(family, folder, "transformer").get(family.positions) if family.positions else None
    most = [side * step for side in (known[-2:] if isinstance(known, list) else [known, known] if known else [])]
    if len(most) == 2 and (height > most[0] or width > most[1]):
        return f"{height} x {width} pixels: the model has positions for {most[0]} x {most[1]}"
    return None


def frames_problem(family: Family, folder: str | Path, frames: int) -> str | None:
    """Why the model in `folder` cannot make samples of so many frames; None where nothing there speaks against it."""
    if not family.makes_videos:
        return None if frames == 1 else f"{family.title} makes images; remove it"
    step = _vae_of(family, folder).get("scale_factor_temporal")
    if not isinstance(step, int) or (frames - 1) % step == 0:
        return None
    near = (frames - 1) // step * step + 1
    return f"{frames} frames: must be one more than a multiple of {step}, such as {near} or {near + step}"


def _vae_of(family: Family, folder: str | Path) -> dict[str, Any]:
    """The VAE's configuration, with what its class takes where that says nothing; {} where there is none."""
    found = _config_of(family, folder, "vae")
    return {**family.vae_defaults, **found} if found else {}


def _config_of(family: Family, folder: str | Path, part: str) -> dict[str, Any]:
    """The configuration of a pipeline's part, or what the family says of a model that is not a folder here; {} where
    there is neither."""
    place = Path(folder).expanduser()
    if not place.is_dir():
        return (described_as(str(folder), family.sizes) or {}).get(part, {})
    try:
        found = read_json(place / part / "config.json")
    except (DataError, OSError):
        return {}
    return found if isinstance(found, dict) else {}
