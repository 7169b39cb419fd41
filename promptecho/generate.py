"""Checkpoint -> images on benchmark prompts, shard by shard, resuming at the image.

Every image's noise is a function of (seed, prompt id, image index) alone: sharding, batching and interruptions
change nothing but the last float digits of a batched forward pass. At a fixed batch size the bytes are identical
however often a shard was killed, because a shard's batches are fixed and an unfinished one is generated again.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import PIL.Image
import torch

from promptecho.benchmarks.layout import Layout
from promptecho.benchmarks.packing import restore
from promptecho.benchmarks.registry import load_layout
from promptecho.captions.journal import Journal
from promptecho.compute.mode import only_deterministic, set_up
from promptecho.config import ExperimentConfig, slice_digest
from promptecho.config.memory import generation_keys
from promptecho.config.scorers import image_set_limit
from promptecho.errors import ConfigError, DataError, counted
from promptecho.files import digest, read_json, sha256_file, write_jsonl
from promptecho.image_output import ArchiveOutput, FileOutput, Image, ImageOutput, Row
from promptecho.memory import MemoryAdvice, in_phase
from promptecho.phases import Phase
from promptecho.progress import Progress
from promptecho.suggest import maybe
from promptecho.t2i.lengths import sorted_by_length
from promptecho.t2i.prompt_cache import PromptCache
from promptecho.t2i.registry import load_configured
from promptecho.train.data import normal
from promptecho.writer import Writer

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass
class GenerateJob:
    """One shard of an image set from one checkpoint; `adapter` is None for the base model."""

    config: ExperimentConfig
    run: str
    step: int
    image_set: str
    prompts: Path
    shard: int
    num_shards: int
    out: Path
    work: Path
    adapter: Path | None = None
    device: str = "cpu"


def generate_shard(job: GenerateJob) -> Path:
    """Generate what is missing of a shard, then write `out/shards/K.jsonl`, which declares it complete.

    Returns the path of that file. Raises:
        ConfigError: unknown image set or shard, or an adapter given or missing against the run's name.
        DataError: a missing prompt file or adapter, a full disk, or prompts that the model cannot take (all are named).
        OutOfMemoryError: names phase and keys; finished batches stay.
    """
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
            _make(job, journal, layout, every, {one: one in sound for one in mine if one in made}, output)
        sha256_of = output.finish(sorted({p for p, _ in mine}))
    rows = [
        {
            "prompt_id": layout.ids[p],
            "image_index": i,
            "prompt": layout.texts[p],
            "filename": str(layout.image_path(p, i).relative_to(job.out)),
            "sha256": sha256_of((p, i)),
        }
        for p, i in mine
    ]
    path = job.out / "shards" / f"{job.shard}.jsonl"
    write_jsonl(path, rows)
    return path


def _make(
    job: GenerateJob, journal: Journal, layout: Layout, every: list[Image], made: dict[Image, bool],
    output: ImageOutput,
) -> None:  # fmt: skip
    """Make what is missing of a shard's images `every`.

    Args:
        made: those wanted ones that were made before, and whether they are still there as they were.
    """
    settings, chosen = job.config.image_sets[job.image_set], set(layout.chosen)
    memory = MemoryAdvice(job.device, partial(generation_keys, job.config, job.image_set))
    tokens = _check_prompts(job, layout)
    cache = job.config.models_prompt_cache
    set_up(job.config, job.device)
    with memory(Phase.LOAD_T2I):
        own = _published(job, "pad_prompts")
        options = {"pad_prompts": own} if own else {}
        family = load_configured(job.config, job.device, text_encoder_device="cpu" if cache else None, **options)
    # A batch holds prompts of one length, where there are enough of them. Batches are those of all the shard's images,
    # so that they stay as they are when a limit changes or a job starts again.
    every = sorted_by_length(family, every, lambda image: tokens[image[0]])
    batches = [every[start : start + settings.batch_size] for start in range(0, len(every), settings.batch_size)]
    missing = []
    for batch in batches:
        wanted = [one for one in batch if one[0] in chosen]
        if all(made.get(one, True) for one in wanted):  # else all of it: other neighbours may change the last bits
            wanted = [one for one in wanted if one not in made]
        if wanted:
            missing.append(wanted)
    total = sum(p in chosen for p, _ in every)
    bar = Progress(
        f"generate {job.image_set} {job.run} {job.step} shard {job.shard}", total, "images",
        done=total - sum(len(batch) for batch in missing),
    )  # fmt: skip
    encoder = PromptCache.of(job.config, family, turn=(job.shard, job.num_shards))
    fold: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if job.adapter is not None:
        from promptecho.t2i.lora import load_adapter, merged

        family.transformer = load_adapter(family.transformer, job.adapter)
        fold = merged(family.transformer, half=job.config.compute.fold_adapter)
    shape = family.latent_shape(*settings.size(job.config.models.t2i))
    print(f"{bar.what}: {counted(total, 'image')}, {bar.count} already done", file=sys.stderr, flush=True)
    with fold, only_deterministic(), Writer() as writer:
        for index, batch in enumerate(missing):
            # A prompt's images share one encoding.
            texts = [layout.texts[p] for p, _ in batch]
            upcoming = (layout.texts[p] for later in missing[index + 1 :] for p, _ in later)
            with memory(Phase.ENCODE):
                cond = encoder.encode(texts, upcoming)
            with memory(Phase.SAMPLE):
                images = _sample_batch(job, family, settings, layout, shape, batch, cond)
            writer.put(partial(_write_batch, memory, journal, layout, batch, images, bar, output))


def _check_prompts(job: GenerateJob, layout: Layout) -> list[int]:
    """Token counts of all prompts of the set, not of this shard alone: if one of them can't be used, every shard would
    be made in vain."""
    from promptecho.captions.checks import problems_of
    from promptecho.captions.readers import t2i_reader

    items, reader = list(zip(layout.ids, layout.texts, strict=True)), t2i_reader(job.config.models.t2i)
    if problem := problems_of([reader], items, job.prompts):
        raise DataError(problem)
    return reader.lengths(layout.texts)


def _sample_batch(
    job: GenerateJob, family, settings, layout: Layout, shape, batch: list[Image], cond: list[torch.Tensor]
) -> list[PIL.Image.Image]:
    noise = torch.stack([normal(shape, settings.seed, "generate", layout.ids[p], i) for p, i in batch])
    latents = family.sample(
        noise.to(job.device),
        cond,
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        schedule=_published(job, "schedule") or settings.schedule,
    )
    if not torch.isfinite(latents).all():
        bad = [batch[k] for k in range(len(batch)) if not torch.isfinite(latents[k]).all()]
        raise DataError(
            f"prompt {layout.ids[bad[0][0]]} image {bad[0][1]}: the model's latents are not finite; {_suspect(job)}"
        )
    with in_phase(Phase.DECODE):
        return family.decode(latents)


def _write_batch(
    memory: MemoryAdvice,
    journal: Journal,
    layout: Layout,
    batch: list[Image],
    images: list[PIL.Image.Image],
    bar: Progress,
    output: ImageOutput,
) -> None:
    """Write a batch's images, then the record that they are done."""

    def saving(one: Image) -> contextlib.AbstractContextManager[None]:
        where = partial(", prompt {} image {}".format, layout.ids[one[0]], one[1])
        return replace(memory, where=where)(Phase.SAVE)

    rows = output.write(batch, images, saving)
    # One line, so that a batch is recorded whole or not at all.
    journal.append([{"images": [_row(layout, *one) | row for one, row in zip(batch, rows, strict=True)]}])
    bar.advance(len(batch))


def _published(job: GenerateJob, key: str) -> str | None:
    """How a published adapter's images are made, where its entry says so; None for all others."""
    entry = job.config.adapters.get(job.run)
    return getattr(entry, key) if entry is not None else None


def _suspect(job: GenerateJob) -> str:
    """What may have made latents that are not finite, and where to look."""
    if job.adapter is None:
        return "there is no adapter: look at dtype and path of models.t2i, and at the image set's guidance_scale"
    if (metrics := job.adapter.parent / "metrics.jsonl").is_file():
        return f"the adapter may have diverged, look at {metrics}"
    if (origin := job.adapter / "source.json").is_file():
        return f"the adapter from {read_json(origin)['source']} may be meant for another model, or be too strong"
    return f"the adapter {job.adapter} may have diverged, or be meant for another model"


def _recipe(job: GenerateJob) -> dict[str, str | None]:
    """What decides the images of a shard besides their prompts: model and sampling, and the adapter's own files."""
    files = [] if job.adapter is None else [sha256_file(job.adapter / name) for name in ADAPTER_FILES]
    own = {key: value for key in ("schedule", "pad_prompts") if (value := _published(job, key))}
    settings = slice_digest(job.config, "generate", image_set=job.image_set)
    return {"settings": settings, "adapter": digest(files) if files else None, **own}


def _row(layout: Layout, p: int, i: int) -> dict:
    """What a finished image is of."""
    return {"prompt_id": layout.ids[p], "prompt": layout.texts[p], "image_index": i}


def _recorded(
    job: GenerateJob, recipe: dict, journal: Journal, layout: Layout, every: list[Image]
) -> dict[Image, list[Row]]:
    """Image -> records of what was made of it by this recipe, in whatever batch; a hash shows whether it is there."""
    rows = [image for row in journal.rows for image in row.get("images", [row])]
    for path in (job.work / "done").glob("[0-9]*.json"):  # earlier versions wrote a record for each batch
        record = read_json(path)
        images = record.pop("images", [])
        rows += images if record == recipe else []
    places = {(layout.ids[p], layout.texts[p], i): (p, i) for p, i in every}
    found: dict[Image, list[Row]] = {}
    for row in rows:
        if (one := places.get((row["prompt_id"], row["prompt"], row["image_index"]))) is not None:
            found.setdefault(one, []).append(row)
    return found
