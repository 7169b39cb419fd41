"""A training whose prompts have the aspect ratio of their photograph, with real Snakemake and the embedded models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from promptecho.captions.store import load_training_captions
from promptecho.files import read_json, read_jsonl
from promptecho.shapes.datasets import prompt_scene
from promptecho.train.prompts import PromptUse

ROOT = Path(__file__).resolve().parent.parent.parent
CAPTIONS = "results/tiny/captions/captions.h5"
PLAIN = "images: photos, num_shards: 1, heldout: 1, max_new_tokens: 24"
TRAINING = (
    "iterations: 4\n  prompts_per_iteration: 6\n  images_per_prompt: 4\n  batch_size: 24\n",
    "iterations: 2\n  prompts_per_iteration: 2\n  images_per_prompt: 2\n  batch_size: 4\n  passes: 1\n"
    "  heldout: {prompts: 1}\n  timesteps: {per_sample: 1}\n"
    "  sampling: {num_inference_steps: 2, guidance_scale: 0.0}\n",
)
BUCKETS = "buckets: {pixels: 4096, max_ratio: 1.5, multiple: 8}, size_by: image"
SIZES = {(72, 56): "56x72", (90, 60): "56x72", (56, 72): "72x56", (40, 60): "72x56", (64, 64): "64x64"}


def photograph(path: Path, index: int, size: tuple[int, int]) -> None:
    """Of the embedded world, `size` (width, height) as a viewer shows it; odd ones lie on their side in the file."""
    path.parent.mkdir(exist_ok=True)
    image, exif = prompt_scene(np.random.default_rng(index)).resize(size), Image.Exif()
    if index % 2:
        image, exif[0x0112] = image.transpose(Image.Transpose.ROTATE_90), 6
    image.save(path, exif=exif, quality=95)


def test_prompts_get_the_size_of_their_photograph_and_finished_captions_stay(workflow):
    root = workflow.root
    (root / "promptecho/shapes/weights").symlink_to(ROOT / "promptecho/shapes/weights")
    workflow.edit("config/experiments/tiny.yaml", "shapes: {count: 40, seed: 1}, num_shards: 3, heldout: 8", PLAIN)
    workflow.edit("config/experiments/tiny.yaml", "  checkpoints: [2, 4]\n", "")
    workflow.edit("config/experiments/tiny.yaml", *TRAINING)
    sizes = {f"{k}.jpg": list(SIZES)[k % len(SIZES)] for k in range(6)}
    for index, (name, size) in enumerate(sizes.items()):
        photograph(root / "photos" / name, index, size)
    done = workflow.snakemake(CAPTIONS)
    assert done.returncode == 0, done.stdout
    before, checkpoint = (root / CAPTIONS).read_bytes(), "results/tiny/runs/echo-s1/2"

    workflow.edit("config/experiments/tiny.yaml", "echo-s1: {seed: 1}", f"echo-s1: {{seed: 1, {BUCKETS}}}")
    assert workflow.planned(f"{checkpoint}/metrics.jsonl") == {"image_sizes": 1, "train": 1}
    done = workflow.snakemake(f"{checkpoint}/metrics.jsonl")
    assert done.returncode == 0, done.stdout
    assert (root / CAPTIONS).read_bytes() == before
    rows = read_jsonl(root / "results/tiny/captions/image_sizes.jsonl")
    assert {row["data_id"]: (row["width"], row["height"]) for row in rows} == sizes
    prompts = load_training_captions(root / CAPTIONS)
    assert len({SIZES[sizes[one.prompt_id]] for one in prompts}) == 3
    used = PromptUse(prompts, [{name: SIZES[size] for name, size in sizes.items()}], 1, 2)
    assert read_json(root / checkpoint / "state/state.json")["prompts"]["used"] == [used.of(0), used.of(1)]
