"""The oracle for posters: reads ground and letters by comparing each cell with the glyphs; it learns nothing."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from PIL import Image

from promptecho.gallery.drawing import BULLET, MARGIN
from promptecho.gallery.glyphs import ALPHABET, CELL, glyph
from promptecho.gallery.posters import GROUNDS, SLOTS, Poster
from promptecho.gallery.words import LONGEST

LEGIBLE = 0.6  # least correlation of a cell with a glyph; below it there is ink that is no character
INKED = 0.35  # least contrast inside of a cell that counts as ink, in units of that between ground and ink
ILLEGIBLE = "?"


@dataclass(frozen=True)
class ReadPoster:
    """What an image shows as a poster; a character that no glyph fits is `?`. `score` (0-1) is the least correlation
    of a character with its glyph, 1.0 without text."""

    poster: Poster
    score: float


@functools.cache
def _glyphs(title: bool) -> np.ndarray:
    """Glyphs as unit vectors without mean, moved by up to a pixel: [36, 9, pixels]."""
    moved = []
    for character in ALPHABET:
        cell = np.pad(glyph(character, title), 1)
        shifts = [np.roll(cell, (dy, dx), (0, 1))[1:-1, 1:-1] for dy in (0, -1, 1) for dx in (0, -1, 1)]
        moved.append([(s - s.mean()).ravel() / np.linalg.norm(s - s.mean()) for s in shifts])
    return np.array(moved)


def read_poster(image: Image.Image) -> ReadPoster:
    """Ground and texts of a poster, in the slots of the template."""
    pixels = np.asarray(image.convert("RGB"), np.float32)
    ground = np.median(pixels.reshape(-1, 3), axis=0)
    names = list(GROUNDS)
    name = names[int(np.argmin([np.abs(ground - GROUNDS[n][0]).sum() for n in names]))]
    axis = np.array(GROUNDS[name][1], np.float32) - ground
    ink = np.clip((pixels - ground) @ axis / (axis @ axis), -0.2, 1.2)  # [64, 64]
    texts, score = [], 1.0
    for role, row in SLOTS:
        title = role == "main_title"
        top, height = row * CELL, 2 * CELL if title else CELL
        bullet = ink[top : top + CELL, :CELL][BULLET, BULLET].mean() > 0.5
        if role == "selling_points" and not bullet:
            continue
        cells = ink[top : top + height, MARGIN * CELL :].reshape(height, -1, CELL).transpose(1, 0, 2)
        word = ""
        for cell in cells[:LONGEST]:
            if np.percentile(cell, 90) < INKED:
                break
            value = (cell - cell.mean()).ravel() / max(float(np.linalg.norm(cell - cell.mean())), 1e-6)
            fit = (_glyphs(title) @ value).max(1)
            score = min(score, float(fit.max()))
            word += ALPHABET[int(fit.argmax())] if fit.max() >= LEGIBLE else ILLEGIBLE
        if word:
            texts.append((role, word))
    return ReadPoster(Poster(name, tuple(texts)), score)


def judge_poster(asked: Poster, image: Image.Image) -> bool:
    """Whether an image shows exactly the texts that were asked for, each in its role, on the ground asked for."""
    return read_poster(image).poster == asked
