"""The tiny CLIP in the real classes: model and tokenizer."""

from __future__ import annotations

import json
import math

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from promptecho.shapes.models import waves
from promptecho.shapes.tokenizer import shapes_corpus
from promptecho.shapes.world import IMAGE_SIZE

WIDTH, PATCH, MOST_TOKENS = 96, 8, 32
END_OF_WORD = "</w>"


def build_clip_tokenizer(size: int = 200) -> CLIPTokenizer:
    """CLIP's own tokenizer class, with at most `size` merges that are learned on the shapes language.

    As in CLIP's vocabulary, each byte is a token, within a word and at its end; so no text has an unknown token, which
    would be taken for the text's end.
    """
    of_class = CLIPTokenizer().backend_tokenizer
    learner = Tokenizer(models.BPE(end_of_word_suffix=END_OF_WORD))
    learner.normalizer, learner.pre_tokenizer = of_class.normalizer, of_class.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(alphabet) + size, initial_alphabet=alphabet, show_progress=False, min_frequency=2,
        end_of_word_suffix=END_OF_WORD,
    )  # fmt: skip
    learner.train_from_iterator([*shapes_corpus(), *["a photo depicts"] * 40], trainer)
    merges = [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]][:size]
    tokens = [*alphabet, *(letter + END_OF_WORD for letter in alphabet), *("".join(merge) for merge in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(
        vocab=vocabulary, merges=merges, model_max_length=MOST_TOKENS,  # type: ignore[arg-type]  # it takes pairs too
    )  # fmt: skip


def build_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """0.6 million parameters: 64 patches of 8x8 pixels, at most `MOST_TOKENS` tokens, both towers `WIDTH` wide.

    The position embeddings of the patches start at waves, as the VLM's do (`spread_positions`).
    """
    tower = {
        "hidden_size": WIDTH,
        "intermediate_size": 3 * WIDTH,
        "num_attention_heads": WIDTH // 32,
        "projection_dim": WIDTH,
    }
    text = {
        "vocab_size": len(tokenizer),
        "num_hidden_layers": 2,
        "max_position_embeddings": MOST_TOKENS,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    image = {"num_hidden_layers": 3, "image_size": IMAGE_SIZE, "patch_size": PATCH}
    model = CLIPModel(CLIPConfig(text_config=tower | text, vision_config=tower | image, projection_dim=WIDTH))
    positions = model.vision_model.embeddings.position_embedding.weight  # the first is that of the class token
    with torch.no_grad():
        positions[1:] = 0.5 * waves(math.isqrt(len(positions) - 1), WIDTH)
    return model
