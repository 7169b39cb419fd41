"""The example CLIPScore in CLIP's real classes with tiny random weights: its formula, cut texts, and an audit of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from forked import ended
from PIL import Image
from tiny_perception import tiny_clip, tiny_tokenizer

from promptecho.files import read_json, write_jsonl

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/reward_clip"
CAPTIONS = ["A red square and a cat.", "A blue square.", "Three dogs, " + "really " * 12]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    from transformers import CLIPProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder, tokenizer = tmp_path_factory.mktemp("clip"), tiny_tokenizer()
    tiny_clip(len(tokenizer)).save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessorPil(), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture
def config(clip, tmp_path, monkeypatch) -> str:
    """The example, copied elsewhere, with the tiny model."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(EXAMPLE, "mine")
    file = Path("mine/shapes-clip.yaml")
    text = file.read_text()
    assert "openai/clip-vit-base-patch32" in text
    file.write_text(text.replace("openai/clip-vit-base-patch32", str(clip)))
    for index, color in enumerate(("red", "blue", "white")):
        Image.new("RGB", (64, 48), color).save(f"{index}.png")
    write_jsonl("c.jsonl", [{"image": f"{k}.png", "caption": text} for k, text in enumerate(CAPTIONS)])
    return str(file)


def test_the_reward_is_clipscore_and_tells_of_texts_that_were_cut(config, clip):
    from transformers import CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    words = ["--name", "my_clipscore", "--config", config, "--labels", "c.jsonl", "--json", "--device", "cpu"]
    output, errors = ended(["reward", *(f"{k}.png" for k in range(3)), *words])
    found = json.loads(output)
    model, tokenizer = CLIPModel.from_pretrained(clip).eval(), CLIPTokenizer.from_pretrained(clip)
    for k, (one, caption) in enumerate(zip(found, CAPTIONS, strict=True)):
        ids = tokenizer(f"A photo depicts {caption}")["input_ids"]
        assert one["tokens"] == len(ids) and one["truncated"] == (len(ids) > 77)
        pixels = CLIPImageProcessorPil()(Image.open(f"{k}.png"), return_tensors="pt")
        with torch.inference_mode():
            text = model.get_text_features(torch.tensor([[*ids[:76], ids[-1]] if len(ids) > 77 else ids])).pooler_output
            cosine = torch.cosine_similarity(text, model.get_image_features(**pixels).pooler_output).item()
        assert one["reward"] == pytest.approx(2.5 * max(cosine, 0), abs=1e-5)
    assert [one["truncated"] for one in found] == [False, False, True]
    assert "my_clipscore: 1 of 3 texts so far are longer than the 77 tokens" in errors


def test_an_audit_compares_it_with_echo(config):
    words = ["--config", config, "--captions", "c.jsonl", "--scale", "1", "--other-dtype", "float32"]
    _, errors = ended(["reward-audit", *words, "--device", "cpu", "--out", "out"])
    echo, clipscore = read_json(Path("out/audit.json"))["candidates"]
    assert (echo["reward"], clipscore["reward"]) == ("echo", "my_clipscore") and clipscore["vlm"] is None
    assert clipscore["failed"] is None and clipscore["missing"] == 0 and clipscore["words"] == {}
    assert clipscore["pairs"]["text"]["kinds"]["color"]["n"] == echo["pairs"]["text"]["kinds"]["color"]["n"] == 2
    assert clipscore["cost"]["flops"] is None and "no VLM" in clipscore["cost"]["why_not"]
    assert "tokens that CLIP reads" in errors
    assert "my_clipscore" in Path("out/audit.html").read_text()
