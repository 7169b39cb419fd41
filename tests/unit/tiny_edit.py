"""A tiny QwenImageEditPlusPipeline with random weights in the real classes, and pictures to edit."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import tiny_qwenimage
from temp_folder import temp_folder


def build(folder: Path, *, seed: int = 0, layers: int = 2, zero_cond_t: bool = False) -> Path:
    """As `tiny_qwenimage.build`; its text encoder sees patches of 14 pixels, as the real one does.

    `zero_cond_t`: the source's tokens have the time 0, as in 2511.
    """
    from diffusers import QwenImageEditPlusPipeline
    from transformers import Qwen2VLImageProcessorPil, Qwen2VLProcessor

    from promptecho.vlm.processor import _without_video

    parts = tiny_qwenimage.parts(seed, layers, patch_size=14, context=2048, zero_cond_t=zero_cond_t)
    processor = _without_video(Qwen2VLProcessor)(Qwen2VLImageProcessorPil(), parts["tokenizer"])
    pipeline = QwenImageEditPlusPipeline(**parts, processor=processor)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return Path(folder)


@cache
def shared_folder(zero_cond_t: bool = False) -> Path:
    """One tiny pipeline of each kind for all tests of this process."""
    return build(temp_folder("tiny-edit-") / "t2i", zero_cond_t=zero_cond_t)


def picture(width: int, height: int, colour: str = "red"):
    """A disc on a slope of grey."""
    from PIL import Image, ImageDraw

    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    ImageDraw.Draw(image).ellipse([width // 4, height // 4, 3 * width // 4, 3 * height // 4], fill=colour)
    return image
