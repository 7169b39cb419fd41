"""The tokenizer of both language models: a real Qwen2 byte-level BPE, its merges learned on the shapes language."""

from __future__ import annotations

import json

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from promptecho.shapes.grammar import EMPTY, describe, plural, write
from promptecho.shapes.world import COLORS, NUMBERS, SHAPES, wide_scene

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
QUERY = "Describe this image in detail."
# Qwen's conversation format, reduced to what these models see: turns of text and images, no system turn or tools.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def shapes_corpus() -> list[str]:
    """Text in which every word of the language is frequent enough to become one token."""
    rng = np.random.default_rng(0)
    lines = [write(describe(wide_scene(rng), rng), i % 4) for i in range(400)]
    words = [*COLORS, *SHAPES, *map(plural, SHAPES), *NUMBERS, "to the left of", "to the right of", "above", "below"]
    lines += [f"a {word}" for word in words] * 20 + [f"{word.capitalize()} a" for word in NUMBERS] * 20
    return (
        lines
        + [QUERY, EMPTY, "user\n", "assistant\n", "a photo of a", "The image shows a", "There is", "There are"] * 40
    )


def build_tokenizer(max_length: int = 512, corpus: list[str] | None = None, size: int = 560) -> Qwen2Tokenizer:
    """Learn the merges (seconds, deterministic) and wrap them in Qwen's own tokenizer class.

    `corpus` is the text to learn from, by default the shapes language; `size` the most tokens to learn.
    """
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.NFC()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    learner.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False, min_frequency=2)
    learner.train_from_iterator(shapes_corpus() if corpus is None else corpus, trainer)
    model = json.loads(learner.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],  # type: ignore[misc]  # it takes pairs too
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        model_max_length=max_length,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
