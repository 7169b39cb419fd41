"""Checkpoint -> images on benchmark prompts, shard by shard, resuming at the image.

Every image's noise is a function of (seed, prompt id, image index) alone: sharding, batching and interruptions
change nothing but the last float digits of a batched forward pass. At a fixed batch size the bytes are identical
however often a shard was killed, because a shard's batches are fixed and an unfinished one is generated again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from promptecho.benchmarks.layout import Layout
from promptecho.benchmarks.packing import restore
from promptecho.benchmarks.registry import load_layout
from promptecho.captions.journal import Journal
from promptecho.captions.sources import check_sources
from promptecho.config import slice_digest
from promptecho.config.families import family_named
from promptecho.config.scorers import image_set_limit
from promptecho.errors import ConfigError
from promptecho.files import digest, read_json, sha256_file, write_jsonl
from promptecho.generate_job import GenerateJob
from promptecho.image_output import ArchiveOutput, FileOutput, Image, ImageOutput, Row
from promptecho.source_images import KEY
from promptecho.suggest import maybe

if TYPE_CHECKING:  # with torch, which a shard that is complete needs nothing of
    from promptecho.image_maker import ImageMaker

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
MODEL_FILES = ("config.json", "diffusion_pytorch_model.safetensors")  # of a run with `finetuning: full`
Maker = Callable[[], "ImageMaker"]


def generate_shard(job: GenerateJob) -> Path:
    """Generate what is missing of a shard, then write `out/shards/K.jsonl`, which declares it complete.

    Returns the path of that file. Raises:
        ConfigError: unknown image set or shard, or an adapter given or missing against the run's name.
        DataError: a missing prompt file or adapter, a full disk, or prompts that the model cannot take (all are named).
        OutOfMemoryError: names phase and keys; finished batches stay.
    """
    return generate_shards([job])[0]


def generate_shards(jobs: Sequence[GenerateJob]) -> list[Path]:
    """`generate_shard` of several shards of one checkpoint, one after the other; the model is loaded once."""
    with _one_maker(jobs[0]) as maker:
        return [_list_images(job, _complete(job, maker)) for job in jobs]


def make_images(jobs: Sequence[GenerateJob], by: ImageMaker | None = None) -> None:
    """The images of several shards of one checkpoint, without the files that declare the shards complete.

    Args:
        by: what has that checkpoint's model already.
    """
    with _one_maker(jobs[0]) as maker:
        for job in jobs:
            _complete(job, maker if by is None else lambda: by)


@contextlib.contextmanager
def _one_maker(job: GenerateJob) -> Iterator[Maker]:
    """What gives the checkpoint's model, which is loaded when the first image is missing."""
    with contextlib.ExitStack() as stack:

        @cache
        def maker() -> ImageMaker:
            from promptecho.image_maker import ImageMaker

            return stack.enter_context(ImageMaker(job))

        yield maker


def _complete(job: GenerateJob, maker: Maker) -> list[dict]:
    """Make what is missing of a shard; returns the rows about its images."""
    if job.image_set not in job.config.image_sets:
        known = job.config.image_sets
        raise ConfigError(
            f"image_sets.{job.image_set}: no such entry (known: {', '.join(known)}){maybe(job.image_set, known)}"
        )
    if (job.run == "base") != (job.adapter is None):
        raise ConfigError(f"run {job.run}: the base model has no --adapter, every other run needs one")
    if not 0 <= job.shard < job.num_shards:
        raise ConfigError(f"--shard {job.shard}: must be below --num-shards {job.num_shards}")
    settings = job.config.image_sets[job.image_set]
    limit = image_set_limit(job.config, job.image_set)
    layout = load_layout(settings.benchmark, job.prompts, job.out, settings.images_per_prompt, limit)
    every = [
        (p, i)
        for p in range(len(layout.ids))
        for i in range(settings.images_per_prompt)
        if (p * settings.images_per_prompt + i) % job.num_shards == job.shard
    ]
    family = family_named(job.config.models.t2i.family)
    check_sources(family, layout.ids, job.sources, job.prompts)
    chosen = set(layout.chosen)
    mine = [(p, i) for p, i in every if p in chosen]
    restore(job.out)
    for path in job.out.glob("shards/[0-9]*"):  # of a larger number of shards
        if path.suffix in (".jsonl", ".zip") and path.stem.isdecimal() and int(path.stem) >= job.num_shards:
            path.unlink(missing_ok=True)
    # Records in the work folder, not the images' folder, say what is done: an image there may stem from an earlier
    # configuration or adapter.
    recipe = _recipe(job)
    done = job.work / "done" / f"{digest(recipe)}.jsonl"
    data = done.with_suffix(".images")
    output: ImageOutput = FileOutput(layout, job.out, job.shard, data, every)
    if settings.storage == "zip":
        output = ArchiveOutput(layout, job.out, job.shard, data, every)
    with Journal(done, recipe) as journal:
        output.prepare()
        layout.remove_stale()
        made = _recorded(job, recipe, journal, layout, every)
        # An archive that is written anew keeps the images that a limit leaves out.
        looked_for = every if settings.storage == "zip" else mine
        sound = {one for one in looked_for if one in made and output.holds(one, made[one])}
        if not sound.issuperset(mine):
            made_before = {one: one in sound for one in mine if one in made}
            maker().make(job, journal, layout, every, made_before, output)
        sha256_of = output.finish(sorted({p for p, _ in mine}))
    return [
        {
            "prompt_id": layout.ids[p],
            "image_index": i,
            "prompt": layout.texts[p],
            "filename": str(layout.image_path(p, i).relative_to(job.out)),
            "sha256": sha256_of((p, i)),
        }
        for p, i in mine
    ]


def _list_images(job: GenerateJob, rows: list[dict]) -> Path:
    """Write the file that declares a shard complete."""
    path = job.out / "shards" / f"{job.shard}.jsonl"
    write_jsonl(path, rows)
    return path


def _recipe(job: GenerateJob) -> dict[str, str | None]:
    """What decides the images of a shard besides their prompts: model and sampling, and the adapter's own files."""
    files = [] if job.adapter is None else [sha256_file(job.adapter / name) for name in checkpoint_files(job.adapter)]
    own = {key: value for key in ("schedule", "pad_prompts") if (value := job.published(key))}
    settings = slice_digest(job.config, "generate", image_set=job.image_set)
    return {"settings": settings, "adapter": digest(files) if files else None, **own}


def checkpoint_files(folder: Path) -> tuple[str, ...]:
    """Names of the files that decide what a checkpoint's folder computes."""
    return MODEL_FILES if (folder / MODEL_FILES[1]).is_file() else ADAPTER_FILES


def _recorded(
    job: GenerateJob, recipe: dict, journal: Journal, layout: Layout, every: list[Image]
) -> dict[Image, list[Row]]:
    """Image -> records of what was made of it by this recipe, in whatever batch; a hash shows whether it is there."""
    rows = [image for row in journal.rows for image in row.get("images", [row])]
    for path in (job.work / "done").glob("[0-9]*.json"):  # earlier versions wrote a record for each batch
        record = read_json(path)
        images = record.pop("images", [])
        rows += images if record == recipe else []
    sources = {name: source.sha256 for name, source in job.sources.items()}
    places = {(layout.ids[p], layout.texts[p], sources.get(layout.ids[p]), i): (p, i) for p, i in every}
    found: dict[Image, list[Row]] = {}
    for row in rows:
        if (one := places.get((row["prompt_id"], row["prompt"], row.get(KEY), row["image_index"]))) is not None:
            found.setdefault(one, []).append(row)
    return found
