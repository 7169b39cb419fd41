"""The gallery's tokenizer: every word of its captions is one token, every character on a poster another."""

from __future__ import annotations

import functools

import numpy as np
from transformers import Qwen2Tokenizer

from promptecho.gallery.captions import SAID_SIZES, SAID_TEXTURES, WORDINGS, describe_dense, write_dense
from promptecho.gallery.posters import GROUNDS, READ_QUERY, ROLES, Poster, write_label, write_prompt
from promptecho.gallery.scenes import any_scene
from promptecho.shapes.grammar import EMPTY, plural
from promptecho.shapes.questions import PLACES_QUERY, SCORE_CORPUS
from promptecho.shapes.tokenizer import QUERY, build_tokenizer
from promptecho.shapes.world import COLORS, NUMBERS, SHAPES


@functools.cache
def _corpus() -> tuple[str, ...]:
    """Text in which every word is frequent enough to become one token, and no two capitals or digits meet."""
    rng = np.random.default_rng(0)
    lines = [write_dense(describe_dense(any_scene(rng), rng), i % WORDINGS) for i in range(600)]
    words = [
        *COLORS,
        *SHAPES,
        *map(plural, SHAPES),
        *NUMBERS,
        *SAID_SIZES,
        *SAID_TEXTURES,
        *GROUNDS,
        "object",
        "is shown",
    ]
    words += ["to the left of", "to the right of", "above", "below", "without a", "with no", "with the", "and no"]
    lines += [f"a {word}" for word in words] * 20 + [f"{word.capitalize()} a" for word in NUMBERS] * 20
    for role in ROLES:
        for index, ground in enumerate(GROUNDS):
            poster = Poster(ground, ((role, "A"), ("other_text", "B")))
            lines += [write_label(poster), write_prompt(poster, index % 3)] * 10
    starts = [
        "user\n",
        "assistant\n",
        "a photo of a",
        "The image shows a",
        "There is",
        "There are",
        "There is no",
        "No",
    ]
    return (*lines, *[QUERY, PLACES_QUERY, READ_QUERY, EMPTY, *starts, *SCORE_CORPUS] * 40)


def gallery_tokenizer() -> Qwen2Tokenizer:
    """Learn the merges (seconds, deterministic)."""
    return build_tokenizer(corpus=list(_corpus()), size=640)
