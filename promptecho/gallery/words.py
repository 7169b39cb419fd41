"""The words and numbers on posters, and which of them no training may see."""

from __future__ import annotations

import hashlib

import numpy as np

from promptecho.gallery.glyphs import ALPHABET

LONGEST = 6  # characters of a line: 6 cells of 8 pixels between two margins
HELD_OUT_SHARE = 0.1
_VOWELS, _CONSONANTS = "AEIOUY", "BCDFGHJKLMNPQRSTVWXZ"


def is_held_out(word: str) -> bool:
    """Whether a word is kept for judging: a pure function of its letters, about one word in ten."""
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big") < HELD_OUT_SHARE * 2**32


def random_word(rng: np.random.Generator, held_out: bool = False, spelled_freely: bool = False) -> str:
    """A word of two to five characters: pronounceable, or a number (one in four), or with `spelled_freely` any
    characters at all. `held_out` says on which side of `is_held_out` it lies."""
    while True:
        length = int(rng.integers(2, 6))
        if spelled_freely:
            word = "".join(rng.choice(list(ALPHABET), size=length))
        elif rng.random() < 0.25:
            word = "".join(rng.choice(list("0123456789"), size=length))
        else:
            first = int(rng.integers(2))
            word = "".join(str(rng.choice(list((_VOWELS, _CONSONANTS)[(first + i) % 2]))) for i in range(length))
        if is_held_out(word) == held_out:
            return word
