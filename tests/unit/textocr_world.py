"""Rendered text for tests of text rendering."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from promptecho.benchmarks.scoring import ImageFolder
from promptecho.benchmarks.textocr.layout import TextOcrLayout
from promptecho.files import write_jsonl


def draw(*lines: str, columns: bool = False) -> Image.Image:
    """Dark lines on a light image, one below the other or side by side."""
    image = Image.new("RGB", (200, 160), (250, 250, 245))
    font = ImageFont.load_default(size=24)
    for number, line in enumerate(lines):
        place = (20 + 100 * number, 20) if columns else (20, 15 + 45 * number)
        ImageDraw.Draw(image).text(place, line, fill=(20, 20, 60), font=font)
    return image


def write_folder(folder: Path, rows: list[dict], images: list[Image.Image]) -> ImageFolder:
    """A prompt file and its finished image folder, one image per prompt."""
    prompts, root = folder / "prompts.jsonl", folder / "images"
    write_jsonl(prompts, rows)
    layout = TextOcrLayout(prompts, root, 1)
    root.mkdir()
    for p, image in enumerate(images):
        image.save(layout.image_path(p, 0))
    layout.describe(range(len(rows)))
    return ImageFolder(root, prompts, 1)
