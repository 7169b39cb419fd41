"""What generating the images of each image set takes."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from promptecho.config import ExperimentConfig, baseline_of, evaluation_steps
from promptecho.config.models import ImageSetSection
from promptecho.config.scorers import PAIRWISE, image_set_limit
from promptecho.plan.costs import T2iCosts
from promptecho.plan.phases import Clock

# Prompts of the official sets by file, for where they are not fetched yet (docs/benchmarks.md).
OFFICIAL = {
    "evaluation_metadata.jsonl": 553, "dpg_bench.csv": 1065, "testmini.jsonl": 2 * 277, "metadata.jsonl": 2000,
}  # fmt: skip


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
        return clock.compute(one.times(n_images)) + n_prompts * max(
            clock.compute(encode), clock.read(t2i.text_encoder_bytes)
        )

    flops = one.times(images).total + encode.times(prompts).total
    return Evaluation(
        name, section.num_shards, checkpoints, images, flops, seconds(images) / 3600, seconds(largest) / 3600
    )


def count_prompts(section: ImageSetSection, limit: int | None = None) -> int | None:
    """Prompts of an image set whose images are made; None where its file is not here and is none of the official."""
    known = _count_all(section)
    # TIIF-Bench's prompts are pairs of descriptions, of which a limit counts one and images are made for each.
    most = None if limit is None else limit * (2 if section.benchmark == "tiif" else 1)
    return known if known is None or most is None else min(known, most)


def _count_all(section: ImageSetSection) -> int | None:
    from promptecho.benchmarks.registry import load_layout

    if section.heldout is not None:
        return section.heldout
    if section.shapes is not None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "prompts.jsonl"
            _write_shapes(section, path)
            return len(load_layout(section.benchmark, path, Path(folder), section.images_per_prompt).ids)
    path = Path(section.prompts)
    if path.is_file():
        return len(load_layout(section.benchmark, path, path.parent, section.images_per_prompt).ids)
    return OFFICIAL.get(path.name)


def _write_shapes(section: ImageSetSection, path: Path) -> None:
    from promptecho.shapes.datasets import write_geneval_prompts
    from promptecho.shapes.dpg import write_dpg_questions
    from promptecho.shapes.textocr import write_textocr_prompts
    from promptecho.shapes.tiif import write_tiif_prompts

    writers = {
        "geneval": write_geneval_prompts, "dpg": write_dpg_questions, "tiif": write_tiif_prompts,
        "textocr": write_textocr_prompts,
    }  # fmt: skip
    writers[section.benchmark](section.shapes.per_tag, section.shapes.seed, path)


def _checkpoints(config: ExperimentConfig, image_set: str) -> int:
    """Checkpoints of all runs whose images some benchmark scores, or compares others with."""
    found: set[tuple[str, int]] = set()
    for key, benchmark in config.benchmarks.items():
        if benchmark.image_set != image_set or not any(entry.benchmark == key for entry in config.evaluate):
            continue
        for run in ("base", *config.runs, *config.adapters):
            found |= {(run, step) for step in evaluation_steps(config, key, run)}
        if benchmark.scorer in PAIRWISE:
            found.add(baseline_of(config, key))
    return len(found)
