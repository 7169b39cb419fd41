"""The images of one prompt as one picture, as the official evaluator expects and cuts it.

Four images are a grid of two rows, cells 0 and 1 above 2 and 3, without any space between them; one image is itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from promptecho.errors import DataError

COUNTS = (1, 4)  # images per prompt that there is a picture for


def _side(count: int) -> int:
    if count not in COUNTS:
        raise DataError(f"DPG-Bench takes {COUNTS[0]} or {COUNTS[1]} images per prompt, not {count}")
    return 1 if count == 1 else 2


def _place(cell: int, side: int, resolution: int) -> tuple[int, int]:
    return cell % side * resolution, cell // side * resolution


def compose(images: Sequence[Image.Image]) -> Image.Image:
    """The picture of 1 or 4 images, RGB.

    Raises:
        DataError: another number of images, or they are not squares of one size: the evaluator cuts squares.
    """
    side, resolution = _side(len(images)), images[0].width
    if odd := next((image for image in images if image.size != (resolution, resolution)), None):
        raise DataError(
            f"image of {odd.width}x{odd.height} pixels beside one of {images[0].width}x{images[0].height}: DPG-Bench's "
            "grids have square cells of one size; set a square image size"
        )
    grid = Image.new("RGB", (side * resolution, side * resolution))
    for cell, image in enumerate(images):
        grid.paste(image, _place(cell, side, resolution))
    return grid


def resolution_of(grid: Image.Image, count: int) -> int:
    """Width and height of a cell in pixels.

    Raises:
        DataError: the picture cannot be the grid of `count` images; cutting it anyway would shift all cells.
    """
    side = _side(count)
    if grid.width != grid.height or grid.width % side:
        raise DataError(
            f"{grid.width}x{grid.height} pixels are no grid of {side}x{side} square cells; is it really of {count} "
            "images per prompt?"
        )
    return grid.width // side


def cell_of(grid: Image.Image, count: int, cell: int) -> Image.Image:
    """One image of a picture again, pixel for pixel.

    Raises:
        DataError: see resolution_of.
    """
    resolution = resolution_of(grid, count)
    x, y = _place(cell, _side(count), resolution)
    return grid.crop((x, y, x + resolution, y + resolution))
