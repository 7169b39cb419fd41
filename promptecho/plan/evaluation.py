"""What generating the images of each image set takes."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from promptecho.config import ExperimentConfig, baseline_of, evaluation_steps
from promptecho.config.benchmarks import available_benchmarks, benchmark_named, load_part
from promptecho.config.evaluation import ImageSetSection
from promptecho.config.scorers import image_set_limit, is_pairwise
from promptecho.phases import Phase
from promptecho.plan.costs import T2iCosts
from promptecho.plan.phases import Clock


@dataclass(frozen=True)
class Evaluation:
    """Images of one image set from one checkpoint; `checkpoints` of all runs, the base model among them, get them.

    `images`, `flops`, `gpu_hours` and `hours` (all shards at once, one GPU each) are None where nobody knows the
    number of prompts: its file is not here.
    """

    name: str
    shards: int
    checkpoints: int
    images: int | None
    flops: int | None
    gpu_hours: float | None
    hours: float | None


def evaluate(config: ExperimentConfig, name: str, t2i: T2iCosts, clock: Clock) -> Evaluation:
    """What an image set takes; loading models and scoring are not in it."""
    section = config.image_sets[name]
    prompts = count_prompts(section, image_set_limit(config, name))
    checkpoints = _checkpoints(config, name)
    if prompts is None:
        return Evaluation(name, section.num_shards, checkpoints, None, None, None, None)
    images = prompts * section.images_per_prompt
    n = min(section.batch_size, images)
    step = t2i.sample_step(n, section.guidance_scale).times(section.num_inference_steps / n)
    one = step + t2i.decode(n).times(1 / n)
    encode = t2i.encode()
    largest = -(-images // section.num_shards)

    def seconds(n_images: int) -> float:
        n_prompts = -(-n_images // section.images_per_prompt)
        return clock.compute(one.times(n_images), Phase.SAMPLE) + n_prompts * max(
            clock.compute(encode, Phase.ENCODE), clock.read(t2i.text_encoder_bytes)
        )

    flops = one.times(images).total + encode.times(prompts).total
    return Evaluation(
        name, section.num_shards, checkpoints, images, flops, seconds(images) / 3600, seconds(largest) / 3600
    )


def count_prompts(section: ImageSetSection, limit: int | None = None) -> int | None:
    """Prompts of an image set whose images are made; None where its file is not here and is none of the official."""
    known = _count_all(section)
    # A limit counts prompts; one of them may stand for several texts, each with images of its own.
    most = None if limit is None else limit * benchmark_named(section.benchmark).texts_per_prompt
    return known if known is None or most is None else min(known, most)


def _count_all(section: ImageSetSection) -> int | None:
    from promptecho.benchmarks.registry import load_layout

    if section.heldout is not None:
        return section.heldout
    if section.shapes is not None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "prompts.jsonl"
            load_part(section.benchmark, section.shapes.world)(section.shapes.per_tag, section.shapes.seed, path)
            return len(load_layout(section.benchmark, path, Path(folder), section.images_per_prompt).ids)
    assert section.prompts is not None, "an image set has one of the three"
    path = Path(section.prompts)
    if path.is_file():
        return len(load_layout(section.benchmark, path, path.parent, section.images_per_prompt).ids)
    return _official(section.benchmark, path.name)


def _official(benchmark: str, file: str) -> int | None:
    """Texts of an official prompt file, where it is not fetched yet; None for other files."""
    for found in available_benchmarks():
        if found.thing.images == benchmark:
            for source in found.thing.sources:
                if count := source.prompts.get(file):
                    return count * found.thing.texts_per_prompt
    return None


def _checkpoints(config: ExperimentConfig, image_set: str) -> int:
    """Checkpoints of all runs whose images some benchmark scores, or compares others with."""
    found: set[tuple[str, int]] = set()
    for key, benchmark in config.benchmarks.items():
        if benchmark.image_set != image_set or not any(entry.benchmark == key for entry in config.evaluate):
            continue
        for run in ("base", *config.runs, *config.adapters):
            found |= {(run, step) for step in evaluation_steps(config, key, run)}
        if is_pairwise(benchmark):
            found.add(baseline_of(config, key))
    return len(found)
