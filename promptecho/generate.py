"""Checkpoint -> images on benchmark prompts, shard by shard, resuming at the image.

Every image's noise is a function of (seed, prompt id, image index) alone: sharding, batching and interruptions
change nothing but the last float digits of a batched forward pass. At a fixed batch size the bytes are identical
however often a shard was killed, because a shard's batches are fixed and an unfinished one is generated again.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from promptecho.benchmarks.layout import Layout
from promptecho.benchmarks.packing import restore
from promptecho.benchmarks.registry import load_layout
from promptecho.config import ExperimentConfig, slice_digest
from promptecho.config.memory import generation_keys
from promptecho.errors import ConfigError, DataError, counted
from promptecho.files import atomic_path, digest, read_json, sha256_file, write_json, write_jsonl
from promptecho.memory import MemoryAdvice, in_phase
from promptecho.progress import Progress
from promptecho.suggest import maybe
from promptecho.t2i.prompt_cache import PromptCache
from promptecho.t2i.registry import load_configured
from promptecho.train.data import normal

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
    layout = load_layout(settings.benchmark, job.prompts, job.out, settings.images_per_prompt)
    mine = [
        (p, i)
        for p in range(len(layout.ids))
        for i in range(settings.images_per_prompt)
        if (p * settings.images_per_prompt + i) % job.num_shards == job.shard
    ]
    restore(job.out)
    layout.remove_stale()
    for listing in job.out.glob("shards/[0-9]*.jsonl"):  # of a larger number of shards
        if int(listing.stem) >= job.num_shards:
            listing.unlink(missing_ok=True)
    # Records in the work folder, not the images' folder, say what is done: an image there may stem from an earlier
    # configuration or adapter.
    recipe = _recipe(job)
    batches = [mine[start : start + settings.batch_size] for start in range(0, len(mine), settings.batch_size)]
    missing = [(k, batch) for k, batch in enumerate(batches) if not _is_done(job, recipe, layout, k, batch)]
    bar = Progress(
        f"generate {job.image_set} {job.run} {job.step} shard {job.shard}", len(mine), "images",
        done=len(mine) - sum(len(batch) for _, batch in missing),
    )  # fmt: skip
    memory = MemoryAdvice(job.device, partial(generation_keys, job.config, job.image_set))
    if missing:
        _check_prompts(job, layout)
        cache = job.config.models_prompt_cache
        with memory("load_t2i"):
            own = _published(job, "pad_prompts")
            options = {"pad_prompts": own} if own else {}
            family = load_configured(job.config, job.device, text_encoder_device="cpu" if cache else None, **options)
        encoder = PromptCache(family, cache, turn=(job.shard, job.num_shards))
        fold = contextlib.nullcontext()
        if job.adapter is not None:
            from promptecho.t2i.lora import load_adapter, merged

            family.transformer = load_adapter(family.transformer, job.adapter)
            fold = merged(family.transformer)
        shape = family.latent_shape(*settings.size(job.config.models.t2i))
        print(f"{bar.what}: {counted(len(mine), 'image')}, {bar.count} already done", file=sys.stderr, flush=True)
        with fold:
            for index, (k, batch) in enumerate(missing):
                # A prompt's images share one encoding.
                texts = [layout.texts[p] for p, _ in batch]
                upcoming = (layout.texts[p] for _, later in missing[index + 1 :] for p, _ in later)
                with memory("encode"):
                    cond = encoder.encode(texts, upcoming)
                with memory("sample"):
                    _generate_batch(job, family, settings, layout, shape, batch, cond)
                write_json(_record(job, k), _signature(recipe, layout, batch))
                bar.advance(len(batch))
    layout.describe(sorted({p for p, _ in mine}))
    rows = [
        {
            "prompt_id": layout.ids[p],
            "image_index": i,
            "prompt": layout.texts[p],
            "filename": str(layout.image_path(p, i).relative_to(job.out)),
            "sha256": sha256_file(layout.image_path(p, i)),
        }
        for p, i in mine
    ]
    path = job.out / "shards" / f"{job.shard}.jsonl"
    write_jsonl(path, rows)
    return path


def _check_prompts(job: GenerateJob, layout: Layout) -> None:
    """All prompts of the set, not of this shard alone: every shard would be made in vain."""
    from promptecho.captions.checks import problems_of
    from promptecho.captions.readers import t2i_reader

    items = list(zip(layout.ids, layout.texts, strict=True))
    if problem := problems_of([t2i_reader(job.config.models.t2i)], items, job.prompts):
        raise DataError(problem)


def _generate_batch(
    job: GenerateJob, family, settings, layout: Layout, shape, batch: list[tuple[int, int]], cond: list[torch.Tensor]
) -> None:
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
    with in_phase("decode"):
        images = family.decode(latents)
    for (p, i), image in zip(batch, images, strict=True):
        with atomic_path(layout.image_path(p, i)) as temporary:
            image.save(temporary, format="PNG")


def _published(job: GenerateJob, key: str) -> str | None:
    """How a published adapter's images are made, where its entry says so; None for all others."""
    entry = job.config.adapters.get(job.run)
    return entry and getattr(entry, key)


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
    adapter = job.adapter and digest([sha256_file(job.adapter / name) for name in ADAPTER_FILES])
    own = {key: value for key in ("schedule", "pad_prompts") if (value := _published(job, key))}
    return {"settings": slice_digest(job.config, "generate", image_set=job.image_set), "adapter": adapter, **own}


def _signature(recipe: dict, layout: Layout, batch: list[tuple[int, int]]) -> dict:
    """What a finished batch is made from and contains; the hashes tell whether the files are still those."""
    images = [
        {
            "prompt_id": layout.ids[p],
            "prompt": layout.texts[p],
            "image_index": i,
            "sha256": sha256_file(layout.image_path(p, i)),
        }
        for p, i in batch
    ]
    return {**recipe, "images": images}


def _is_done(job: GenerateJob, recipe: dict, layout: Layout, k: int, batch: list[tuple[int, int]]) -> bool:
    path = _record(job, k)
    if not path.is_file() or not all(layout.image_path(p, i).is_file() for p, i in batch):
        return False
    return read_json(path) == _signature(recipe, layout, batch)


def _record(job: GenerateJob, k: int) -> Path:
    """The file that says that batch `k` is done."""
    return job.work / "done" / f"{k:06}.json"
