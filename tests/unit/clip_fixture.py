"""A tiny CLIP in a folder, a head on it, pictures and prompts: what golden numbers were made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from tiny_perception import tiny_clip, tiny_tokenizer

SIZES = ((64, 48), (224, 224), (250, 301))
LONG = "Three dogs, " + "really " * 12  # longer than CLIP reads
PROMPTS = ("A red square and a cat.", LONG, "7 kites", "blue", "Zebra!")
HEAD = (1024, 128, 64, 16, 1)
WIDTH = 24  # of the tiny CLIP's embeddings


def save_clip(folder: Path) -> Path:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = tiny_tokenizer()
    tiny_clip(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    return folder


def picture(index: int, size: tuple[int, int]) -> Image.Image:
    """Waves of colour: smooth, so that a resampling's last bits matter little."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    waves = [np.sin((index + 2) * np.pi * x * (k + 1)) * np.cos((k + index) * np.pi * y) for k in range(3)]
    return Image.fromarray(np.uint8(127.5 + 127 * np.stack(waves, -1)))


def head_state(widths: tuple[int, ...] = HEAD, numbers: tuple[int, ...] = (0, 2, 4, 6, 7)) -> dict:
    """A head's tensors under the authors' names, from a fixed seed; the numbers between are dropout's."""
    import torch

    generator, state, before = torch.Generator().manual_seed(3), {}, WIDTH
    for number, width in zip(numbers, widths, strict=True):
        state[f"layers.{number}.weight"] = torch.randn(width, before, generator=generator) / before**0.5
        state[f"layers.{number}.bias"] = torch.randn(width, generator=generator)
        before = width
    return state


def save_head(path: Path) -> Path:
    import torch

    torch.save(head_state(), path)
    return path
