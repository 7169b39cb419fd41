"""What somebody may have meant: the nearest of the words that are known."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# Words that other tools use for what is named otherwise here; the first one that is a key at this place is taken.
ELSEWHERE = {
    "lr": ("learning_rate",),
    "lr_scheduler": ("lr_schedule",),
    "lr_scheduler_type": ("lr_schedule",),
    "min_lr_ratio": ("lr_floor",),
    "steps": ("num_inference_steps", "iterations"),
    "num_steps": ("num_inference_steps", "iterations"),
    "sampling_steps": ("num_inference_steps",),
    "max_steps": ("iterations",),
    "num_iterations": ("iterations",),
    "epochs": ("iterations", "passes"),
    "inner_epochs": ("passes",),
    "num_inner_epochs": ("passes",),
    "cfg": ("guidance_scale",),
    "cfg_scale": ("guidance_scale",),
    "group_size": ("images_per_prompt",),
    "num_generations": ("images_per_prompt",),
    "lora_rank": ("rank",),
    "lora_alpha": ("alpha",),
    "r": ("rank",),
    "resolution": ("height", "width"),
    "model_path": ("path",),
    "name_or_path": ("path",),
    "torch_dtype": ("dtype",),
    "precision": ("dtype",),
    "prompt_file": ("prompts",),
    "image_dir": ("images",),
    "max_length": ("max_new_tokens", "max_tokens"),
    "bf16": ("bfloat16",),
    "fp32": ("float32",),
    "gpt": ("openai",),
    "google": ("gemini",),
}


def same_word(word: str) -> str:
    """`learningRate`, `Learning-Rate` and `learning rate` are `learning_rate`."""
    word = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word.strip())
    return re.sub(r"[-\s]+", "_", word).lower()


def likeness(word: str, other: str) -> float:
    """1 for the same word, however it is written, or another tool's name of it; else difflib's ratio."""
    one, two = same_word(word), same_word(other)
    if one == two or one.replace("_", "") == two.replace("_", "") or other in ELSEWHERE.get(one, ()):
        return 1.0
    return min(difflib.SequenceMatcher(None, one, two).ratio(), 0.99)


def closest(word: object, known: Iterable[str], at_least: float = 0.6) -> str | None:
    """The word of `known` that is most like `word`, or None where none is like it."""
    rated = [(likeness(str(word), one), one) for one in known]
    best = max(rated, key=lambda pair: pair[0], default=(0.0, ""))
    return best[1] if best[0] >= at_least else None


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """End of a message about an unknown name: the likeliest one, or all that there are."""
    known = [str(name) for name in known]
    close = closest(word, known)
    return f"did you mean {close}?" if close else f"known: {', '.join(known) or 'none'}"


def maybe(word: object, known: Iterable[str]) -> str:
    """`; did you mean NAME?` behind a list of what there is, or nothing."""
    close = closest(word, map(str, known))
    return f"; did you mean {close}?" if close else ""
