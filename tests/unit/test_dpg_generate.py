"""Generation fills DPG-Bench's folder: two shards share every prompt, and the last one composes the pictures."""

from __future__ import annotations

import torch
from PIL import Image
from tiny_experiment import Experiment

from promptecho.benchmarks.dpg.layout import list_images
from promptecho.benchmarks.dpg.questions import read_rows
from promptecho.benchmarks.dpg.shapes import write_dpg_questions
from promptecho.config import load_experiment
from promptecho.files import read_jsonl
from promptecho.generate import GenerateJob, generate_shard

torch.set_num_threads(1)


def test_two_shards(tmp_path):
    experiment, source = Experiment(tmp_path), tmp_path / "questions.jsonl"
    write_dpg_questions(1, 0, source)
    image_set = {
        "benchmark": "dpg", "prompts": str(source), "images_per_prompt": 4, "guidance_scale": 1.0,
        "num_inference_steps": 2, "batch_size": 8, "seed": 5,
    }  # fmt: skip
    config = load_experiment(experiment.config(sections={"image_sets": {"s": image_set}}))
    out = tmp_path / "images"
    for shard in (1, 0):
        listing = generate_shard(
            GenerateJob(
                config=config, run="base", step=0, image_set="s", prompts=source, shard=shard, num_shards=2, out=out,
                work=tmp_path / f"work{shard}",
            )
        )  # fmt: skip
        assert len(read_jsonl(listing)) == 8
        assert (out / "grids").is_dir() == (shard == 0)
    assert read_jsonl(listing)[0]["filename"] == "cells/single_0/00000.png"
    entries = list_images(out, read_rows(source), 4)
    assert len(entries) == 16
    for entry in entries:
        cell = out / "cells" / entry.prompt.item_id / f"{entry.image_index:05}.png"
        assert entry.load().tobytes() == Image.open(cell).convert("RGB").tobytes()
