"""The model of one checkpoint, and how it makes the images of shards: batch by batch, of prompts of one length."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType

import PIL.Image
import torch

from promptecho.benchmarks.layout import Layout
from promptecho.captions.journal import Journal
from promptecho.cluster.device import choose_device
from promptecho.compute.mode import only_deterministic, set_up
from promptecho.config.memory import generation_keys
from promptecho.errors import DataError, counted
from promptecho.files import read_json
from promptecho.generate_job import GenerateJob
from promptecho.image_output import Image, ImageOutput
from promptecho.memory import MemoryAdvice, in_phase
from promptecho.phases import Phase
from promptecho.progress import Progress
from promptecho.source_images import KEY, EditPrompt, Prompt
from promptecho.t2i.base import T2iModel
from promptecho.t2i.lengths import sorted_by_length
from promptecho.t2i.prompt_cache import PromptCache
from promptecho.t2i.registry import load_configured
from promptecho.train.data import normal
from promptecho.writer import Writer


class ImageMaker:
    """The model of a job's checkpoint, for this job and others of the same checkpoint.

    Nothing is loaded before the first image: a shard's prompts are checked first. Used in a `with` statement, after
    which the model is without its adapter.
    """

    def __init__(self, job: GenerateJob):
        self._config, self._adapter, self._pad_prompts = job.config, job.adapter, job.published("pad_prompts")
        if job.threads is not None:
            torch.set_num_threads(job.threads)
        self.device = choose_device(job.device)
        self._folded = contextlib.ExitStack()

    def __enter__(self) -> ImageMaker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folded.close()

    @cached_property
    def _family(self) -> T2iModel:
        set_up(self._config, self.device)
        encoder = "cpu" if self._config.models_prompt_cache else None
        options = {"pad_prompts": self._pad_prompts} if self._pad_prompts else {}
        return load_configured(self._config, self.device, text_encoder_device=encoder, **options)

    def take(self, adapter: Path) -> None:
        """From now on, make images with this adapter; it must be the first one."""
        self._adapter = adapter

    def _take_adapter(self) -> None:
        if self._adapter is None:
            return
        from promptecho.t2i.lora import merged
        from promptecho.t2i.trained import load_trained

        self._family.transformer = load_trained(self._family.transformer, self._adapter)
        self._folded.enter_context(merged(self._family.transformer, half=self._config.compute.fold_adapter))
        self._adapter = None  # it is there now

    def make(
        self, job: GenerateJob, journal: Journal, layout: Layout, every: list[Image], made: dict[Image, bool],
        output: ImageOutput,
    ) -> None:  # fmt: skip
        """Make what is missing of a shard's images `every`.

        Args:
            made: those wanted ones that were made before, and whether they are still there as they were.
        """
        settings, chosen = job.config.image_sets[job.image_set], set(layout.chosen)
        memory = MemoryAdvice(self.device, partial(generation_keys, job.config, job.image_set))
        tokens = _check_prompts(job, layout)
        with memory(Phase.LOAD_T2I):
            family = self._family
        # A batch holds prompts of one length, where there are enough of them. Batches are those of all the shard's
        # images, so that they stay as they are when a limit changes or a job starts again.
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
        self._take_adapter()
        shape = family.latent_shape(*settings.size(job.config.models.t2i))
        print(f"{bar.what}: {counted(total, 'image')}, {bar.count} already done", file=sys.stderr, flush=True)
        with only_deterministic(), Writer() as writer:
            for index, batch in enumerate(missing):
                # A prompt's images share one encoding.
                prompts = [_asked(job, layout, p) for p, _ in batch]
                upcoming = (_asked(job, layout, p) for later in missing[index + 1 :] for p, _ in later)
                with memory(Phase.ENCODE):
                    cond = encoder.encode(prompts, upcoming)
                with memory(Phase.SAMPLE):
                    images = _sample_batch(job, family, layout, shape, batch, cond)
                writer.put(partial(_write_batch, memory, journal, job, layout, batch, images, bar, output))


def _asked(job: GenerateJob, layout: Layout, p: int) -> Prompt:
    """What the family is asked for a prompt."""
    source = job.sources.get(layout.ids[p])
    return layout.texts[p] if source is None else EditPrompt(layout.texts[p], source)


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
    job: GenerateJob, family: T2iModel, layout: Layout, shape: tuple[int, ...], batch: list[Image],
    cond: list[torch.Tensor],
) -> list[PIL.Image.Image]:  # fmt: skip
    settings = job.config.image_sets[job.image_set]
    noise = torch.stack([normal(shape, settings.seed, "generate", layout.ids[p], i) for p, i in batch])
    latents = family.sample(
        noise.to(family.device),
        cond,
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        schedule=job.published("schedule") or settings.schedule,
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
    job: GenerateJob,
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
    journal.append([{"images": [_row(job, layout, *one) | row for one, row in zip(batch, rows, strict=True)]}])
    bar.advance(len(batch))


def _suspect(job: GenerateJob) -> str:
    """What may have made latents that are not finite, and where to look."""
    if job.adapter is None:
        return "there is no adapter: look at dtype and path of models.t2i, and at the image set's guidance_scale"
    if (metrics := job.adapter.parent / "metrics.jsonl").is_file():
        return f"the adapter may have diverged, look at {metrics}"
    if (origin := job.adapter / "source.json").is_file():
        return f"the adapter from {read_json(origin)['source']} may be meant for another model, or be too strong"
    return f"the adapter {job.adapter} may have diverged, or be meant for another model"


def _row(job: GenerateJob, layout: Layout, p: int, i: int) -> dict:
    """What a finished image is of."""
    source = job.sources.get(layout.ids[p])
    own = {} if source is None else {KEY: source.sha256}
    return {"prompt_id": layout.ids[p], "prompt": layout.texts[p], **own, "image_index": i}
