"""GenEval's zero-shot colour classifier: CLIP prompts, weights, answer. Feature extraction is in another file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptecho.benchmarks.geneval.prompts import COLORS

# No a/an handling and "object" in place of the class name in the third: both official.
TEMPLATES = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")


def color_texts(class_name: str, colors: Sequence[str] = COLORS) -> list[list[str]]:
    """Prompts `[colour][template]` for one object class."""
    return [[template.format(color=color, name=class_name) for template in TEMPLATES] for color in colors]


_TINY = np.float32(1e-12)  # the official normalisation divides by no less, so that a zero feature stays zero


def _normalize(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), _TINY)


def classify_colors(text_features: np.ndarray, image_features: np.ndarray, colors: Sequence[str] = COLORS) -> list[str]:
    """The colour of each crop.

    Args:
        text_features: CLIP features `[colour, template, dim]` of `color_texts`, unnormalised.
        image_features: CLIP features `[n, dim]` of the crops, unnormalised.

    Each text feature is normalised, averaged over templates, normalised again; the highest cosine wins.
    """
    weights = _normalize(_normalize(np.asarray(text_features, np.float32)).mean(axis=1))
    images = _normalize(np.asarray(image_features, np.float32).reshape(-1, weights.shape[-1]))
    return [colors[i] for i in np.argmax(images @ weights.T, axis=-1)]
