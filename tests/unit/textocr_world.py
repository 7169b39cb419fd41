"""Rendered text for tests of text rendering."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from promptecho.benchmarks.scoring import ImageFolder
from promptecho.benchmarks.textocr.layout import TextOcrLayout
from promptecho.files import write_jsonl
from promptecho.gallery.drawing import draw_poster
from promptecho.gallery.posters import Poster, parse_prompt


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


def write_posters(folder: Path, rows: list[dict], wrong: int) -> None:
    """Two posters for each prompt; in those of the first `wrong` prompts the first word is another."""
    prompts = folder.parent / "prompts.jsonl"
    write_jsonl(prompts, rows)
    layout = TextOcrLayout(prompts, folder, 2)
    folder.mkdir()
    for p, row in enumerate(rows):
        poster = parse_prompt(row["prompt"])
        if p < wrong:
            (role, _), *rest = poster.texts
            poster = Poster(poster.ground, ((role, "QQQ"), *rest))
        for i in range(2):
            draw_poster(poster).save(layout.image_path(p, i))
    layout.describe(layout.chosen)
