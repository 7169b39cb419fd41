"""Each rank of a sharded VLM reads its own rows of the weight files, and no rank waits for another one's reading."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import tiny_vlm
import torch
from forked import ranks, run

from promptecho.vlm.sharding import lies_in_files


def test_a_rank_reads_its_share_of_several_weight_files(tmp_path):
    """A rank touches about a third of the bytes: its rows, and at their ends what the system reads along."""
    from transformers import AutoConfig, Qwen3VLForConditionalGeneration

    folder = tmp_path / "vlm"
    shutil.copytree(tiny_vlm.shared_folder(), folder)
    (folder / "model.safetensors").unlink()
    config = AutoConfig.from_pretrained(folder)
    config.text_config.intermediate_size = 32768
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(config).float()
    model.save_pretrained(folder, max_shard_size="8MB")
    files = list(folder.glob("*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    assert len(files) > 1 and size > 2e7
    for file in files:  # of files in the system's cache, it shows a process two megabytes around each byte
        with open(file, "rb+") as opened:
            os.fsync(opened)
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    out = tmp_path / "out"
    out.mkdir()
    said = run([folder, out], ranks(3), script=Path(__file__).with_name("read_shares.py"))
    for rank in range(3):
        facts = json.loads((out / f"{rank}.json").read_text())
        assert facts["same"] and facts["light"] == [True]
        assert facts["turns"] == [1, 3]  # the first alone, then all others at once
        assert 0.3 < facts["read"] / size < 0.5, facts
    assert "3 of this node's 3 ranks done" in said


def test_weights_of_another_dtype_than_asked_for_lie_in_no_file():
    from promptecho.vlm import load_vlm

    folder = tiny_vlm.shared_folder()
    assert lies_in_files(load_vlm(folder).model)
    assert not lies_in_files(load_vlm(folder, dtype="bfloat16").model)
