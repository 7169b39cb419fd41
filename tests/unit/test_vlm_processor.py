"""The processor loads with and without torchvision and returns what the model's forward takes."""

from __future__ import annotations

import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import huggingface_hub.constants
import pytest
import torch
from tiny_vlm import image, shared_folder

from promptecho.errors import ModelError
from promptecho.vlm.processor import check_model_path, load_processor

QUERY = "Describe this image in detail."
MESSAGES = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUERY}]}]


def test_expands_each_image_to_its_merged_patches():
    processor = load_processor(shared_folder())
    text = processor.apply_chat_template(MESSAGES, add_generation_prompt=True)
    batch = processor(images=[[image(0)], [image(1, (48, 40))]], text=[text, text], padding=True, return_tensors="pt")
    pad = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    counts = (batch["input_ids"] == pad).sum(dim=1)
    assert torch.equal(counts, batch["image_grid_thw"].prod(dim=1) // 4)
    assert torch.equal((batch["input_ids"] == pad).int(), batch["mm_token_type_ids"].int())
    assert batch["pixel_values"].shape == (batch["image_grid_thw"].prod(dim=1).sum(), 3 * 2 * 4 * 4)


def test_is_of_the_library_class_and_equals_its_parts():
    from transformers import AutoImageProcessor, AutoTokenizer, Qwen3VLProcessor

    folder = shared_folder()
    processor = load_processor(folder)
    assert isinstance(processor, Qwen3VLProcessor)
    pixels = processor.image_processor(images=[image(3)], return_tensors="pt")
    expected = AutoImageProcessor.from_pretrained(folder, backend="pil")(images=[image(3)], return_tensors="pt")
    assert torch.equal(pixels["pixel_values"], expected["pixel_values"])
    assert processor.tokenizer(QUERY).input_ids == AutoTokenizer.from_pretrained(folder)(QUERY).input_ids


def test_saves_and_loads_again(tmp_path):
    processor = load_processor(shared_folder())
    shutil.copytree(shared_folder(), tmp_path / "copy")
    processor.save_pretrained(tmp_path / "copy")
    again = load_processor(tmp_path / "copy")
    assert again.apply_chat_template(MESSAGES) == processor.apply_chat_template(MESSAGES)


@pytest.mark.parametrize("path", ["/nowhere/model", "./model", "a/b/c", "model/"])
def test_missing_folder_is_named(path):
    with pytest.raises(ModelError, match="no such VLM folder"):
        load_processor(path)


def test_incomplete_folder_is_named(tmp_path):
    with pytest.raises(ModelError, match="config.json"):
        load_processor(tmp_path)
    shutil.copytree(shared_folder(), tmp_path / "copy")
    (tmp_path / "copy" / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="copy"):
        load_processor(tmp_path / "copy")


def test_hub_ids_are_left_to_the_library(monkeypatch):
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as hub:  # answers, with a refusal
        threading.Thread(target=hub.handle_request, daemon=True).start()
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{hub.server_port}")
        assert check_model_path("Qwen/Qwen3-VL-8B-Instruct") == "Qwen/Qwen3-VL-8B-Instruct"
