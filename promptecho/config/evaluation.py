"""Sections about what is evaluated: sets of images, benchmarks that score them, and at which checkpoints."""

from __future__ import annotations

import copy
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from promptecho.config.benchmarks import BENCHMARKS, Backend, Benchmark, available_benchmarks, benchmark_named
from promptecho.config.choices import OpenSection, name_of
from promptecho.config.fields import (
    OF_FAMILY,
    SCHEDULE,
    Count,
    Flag,
    Name,
    NonNegative,
    Schedule,
    Section,
    Seed,
    Share,
    Text,
    World,
)
from promptecho.config.image_sizes import Sized

OUTSIDE = "or one from outside (docs/extending.md)"


def _with_images(name: str) -> str:
    benchmark = benchmark_named(name_of(BENCHMARKS)(name))
    if benchmark.images_of:
        message = f"{name} looks at images of {benchmark.images}, and has none of its own"
        raise PydanticCustomError("images_of", "{message}", {"message": message, "hint": f"write {benchmark.images}"})
    return name


def available_backends(ours_only: bool = False) -> dict[str, Backend]:
    """What looks at images for any benchmark, by name."""
    benchmarks = [found.thing for found in available_benchmarks(ours_only)]
    return {backend.name: backend for one in benchmarks for backend in one.backends}


def _backend(name: str) -> str:
    known = [*available_backends()]
    if name not in known:
        expected = f"{', '.join(map(repr, known[:-1]))} or {known[-1]!r}"
        hint = "`promptecho list benchmarks` has those of each benchmark"
        raise PydanticCustomError("unknown", "Input should be {expected}", {"expected": expected, "hint": hint})
    return name


def _retold(fields: dict[str, FieldInfo], **told: str) -> None:
    for key, description in told.items():
        fields[key].description = description


def _choice(field: FieldInfo, names: list[str]) -> None:
    field.annotation = Literal[tuple(names)]  # type: ignore[assignment]


def _named(benchmarks: list[Benchmark]) -> str:
    return "; ".join(f"{one.name}: {one.title}, {one.summary}" for one in benchmarks)


class RenderedPrompts(Section):
    """Benchmark prompts over the embedded world's vocabulary."""

    per_tag: Count = Field(description="Prompts of each of the benchmark's tags, categories or attributes.")
    seed: Seed = Field(description="Seed of the prompts.")
    world: World = Field("shapes", description="shapes; or gallery, whose posters have words that no training sees")


class ImageSetSection(OpenSection):
    """Images that one or several benchmarks score."""

    benchmark: Annotated[Text, AfterValidator(_with_images)] = Field(
        description="Benchmark whose prompts and folder layout the images have"
    )
    prompts: Text | None = Field(
        None,
        description="The benchmark's prompt file; one below data/benchmarks is fetched. For captions as "
        "`captions.prompts`. Relative to where you start.",
    )
    shapes: RenderedPrompts | None = Field(
        None, description="Prompts over the embedded world, in the benchmark's format"
    )
    heldout: Count | None = Field(
        None,
        description="Number of held-out captions of the experiment to take, from the first on",
    )
    images_per_prompt: Count = Field(4, description="Images for each prompt.")
    height: Count | None = Field(None, description="Image height in pixels; null: that of models.t2i.")
    width: Count | None = Field(None, description="Image width in pixels; null: that of models.t2i.")
    guidance_scale: NonNegative = Field(4.0, description=f"Guidance scale in evaluation. {OF_FAMILY}")
    num_inference_steps: Count = Field(50, description="ODE steps in evaluation.")
    schedule: Schedule = Field("pipeline", description=SCHEDULE)
    seed: Seed = Field(0, description="Seed of the images' noise, together with prompt id and image index.")
    num_shards: Count = Field(8, description="Number of generation jobs for each checkpoint.")
    storage: Literal["files", "zip"] = Field(
        "files",
        description="How the images lie on the disk. files: a PNG file each; zip: one uncompressed ZIP file for each "
        "shard, shards/K.zip, with the same PNG files in it, for file systems on which many small files are slow or "
        "counted. Scores and figures read both; no image is made again when it changes.",
    )
    keep: Literal["loose", "packed", "none"] = Field(
        "loose",
        description="What becomes of the images when all scores and figures of a checkpoint are made. loose: they "
        "stay as "
        "they are; packed: they are moved into one file, images.tar, from which scoring can read them again; none: "
        "they are deleted, and made again if something new is asked of them.",
    )
    batch_size: Count = Field(8, description="Images generated together.")
    job: Name | None = Field(
        None,
        description="Image sets with the same name here are made by one job for each checkpoint, in one process that "
        "starts once and loads the model once: for models so small that a start counts. Their shards stay as they are "
        "and are listed by jobs of seconds; no image is made again when it changes. null: each shard is made by a job "
        "of its own, side by side with others.",
    )

    def size(self, t2i: Sized) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.height or t2i.height, self.width or t2i.width

    @classmethod
    def open_choices(cls) -> tuple[str, ...]:
        return ("benchmark",)

    @classmethod
    def written_fields(cls, ours_only: bool = False) -> dict[str, FieldInfo]:
        benchmarks = [found.thing for found in available_benchmarks(ours_only)]
        own = [one for one in benchmarks if not one.images_of]
        fields = {key: copy.copy(field) for key, field in cls.model_fields.items()}
        official = [f"data/benchmarks/{s.name}/{file}" for one in benchmarks for s in one.sources for file in s.prompts]
        others = [f"{one.name} looks at those of {one.images}" for one in benchmarks if one.images_of]
        told = ", ".join(f"{one.name} ({one.title})" for one in own)
        heldout = " or ".join(one.name for one in own if one.takes_heldout)
        without = " or ".join(one.name for one in own if not one.shapes)
        _retold(
            fields,
            benchmark=f"{fields['benchmark'].description}: {'; '.join([told, *others])}; {OUTSIDE}.",
            prompts=str(fields["prompts"].description).replace("is fetched", f"({', '.join(official)}) is fetched"),
            shapes=f"{fields['shapes'].description}; not for {without}.",
            heldout=f"{fields['heldout'].description}; for benchmark: {heldout}.",
        )
        _choice(fields["benchmark"], [one.name for one in own])
        return fields


class BenchmarkSection(OpenSection):
    """A scorer on an image set."""

    image_set: Text = Field(description="Key of `image_sets` whose images are scored.")
    scorer: Annotated[Text, AfterValidator(name_of(BENCHMARKS))] = Field(description="Benchmark whose rules score")
    backend: Annotated[Text, AfterValidator(_backend)] = Field(description="Who looks at the images")
    mode: Literal["official", "fixed"] = Field(
        "official", description="official: the published rules, bug for bug; fixed: without their bugs"
    )
    judge: Text | None = Field(None, description="Key of `judges.models`, for backend judge.")
    parser: Literal["tolerant", "official"] = Field(
        "tolerant",
        description="How a judge's replies are read. tolerant: every reply that holds exactly one unmistakable answer; "
        "official: as the benchmark's authors read them, and other replies are asked again (docs/judges.md).",
    )
    order: Literal["official", "images_first"] = Field(
        "official",
        description="How a message to a judge is put together. official: as the benchmark's authors do, where that is "
        "known, and for others images first. Answers of earlier versions, which sent images first, are kept "
        "(docs/judges.md).",
    )
    questions_per_call: Count = Field(
        1,
        description="by a judge: how many questions about one image are asked in one call. More than 1 costs less and "
        "is another way to ask: such scores compare with each other only.",
    )
    max_failed_share: Share | None = Field(
        None,
        description="Largest share of failed items, such as images without an answer of the judge: tables refuse more, "
        "and with backend judge `judge` and `score` too. null: that of the judge, or 0.01.",
    )
    limit: Count | None = Field(
        None,
        description="For a smoke test: only the first so many prompts, drawn from all tags in their proportions; "
        "images of others are not generated unless another benchmark needs them. Scores and tables say so. null: all "
        "(docs/benchmarks.md).",
    )
    baseline: Text | None = Field(
        None,
        description="the images to compare with: those of `base` (also if null) or of RUN@STEP, which has then no "
        "score itself.",
    )
    model: Text | None = Field(
        None, description="Folder of the backend's model, in place of the one it takes from the hub."
    )
    seed: Seed = Field(
        0, description="Seed of a scorer's random choices, such as which image of a pair is shown first."
    )

    @classmethod
    def open_choices(cls) -> tuple[str, ...]:
        return ("scorer", "backend")

    @classmethod
    def written_fields(cls, ours_only: bool = False) -> dict[str, FieldInfo]:
        benchmarks = [found.thing for found in available_benchmarks(ours_only)]
        backends = available_backends(ours_only)
        fields = {key: copy.copy(field) for key, field in cls.model_fields.items()}
        before = {key: str(field.description) for key, field in fields.items()}
        looks = "; ".join(
            f"{name}: {one.summary}, for {', '.join(b.name for b in benchmarks if name in b.backend_names)}"
            for name, one in backends.items()
        )
        messages = "; ".join(f"{one.name}: {one.message}" for one in benchmarks if one.message)
        _retold(
            fields,
            scorer=f"{before['scorer']}. {_named(benchmarks)}; {OUTSIDE}.",
            backend=f"{before['backend']}. {looks}.",
            mode=f"{before['mode']} ({', '.join(one.name for one in benchmarks if 'fixed' in one.modes)}).",
            order=before["order"].replace("that is known", f"that is known ({messages})"),
            questions_per_call=f"For {' and '.join(one.name for one in benchmarks if one.questions_per_call)} "
            f"{before['questions_per_call']}",
            baseline=f"For {' and '.join(one.name for one in benchmarks if one.pairwise)}: {before['baseline']}",
        )
        _choice(fields["scorer"], [one.name for one in benchmarks])
        _choice(fields["backend"], [*backends])
        return fields


def _steps(value: Any) -> Any:
    if value in ("all", "last"):
        return value
    if isinstance(value, list) and value and all(type(step) is int and step > 0 for step in value):
        return value
    raise ValueError("expected all, last, or a list of steps such as [100, 300]")


At = Annotated[
    Any,
    BeforeValidator(_steps),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["all", "last"]},
                {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1},
            ]
        }
    ),
]


class EvaluateSection(Section):
    """One benchmark and the checkpoints at which it runs."""

    benchmark: Text = Field(description="Key of `benchmarks`.")
    at: At = Field("all", description="all checkpoints, the last one, or a list of steps.")
    base: Flag = Field(True, description="Score the untrained model too.")
