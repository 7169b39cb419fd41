"""A tiny ImageReward as its authors' code keeps it, rebuilt from a seed: what golden numbers were made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clip_fixture import picture
from tiny_blip import bert_tokenizer

WIDTH, TEXT_WIDTH, PATCH, DEPTH = 128, 48, 32, 2
HEAD = (1024, 128, 64, 16, 1)  # the authors' head, whose widths are fixed but for the first
# A wide one, and one whose middle lies between two pixels.
SIZES = ((64, 48), (224, 224), (250, 301), (500, 160), (224, 271))
PICTURES = [picture(index, size) for index, size in enumerate(SIZES)]
LONG = "three dogs, " + "really " * 12
PROMPTS = ("A red square and a cat.", LONG, "yes", "Zebra! 7 kites", LONG + "and one cat")


def med_config() -> dict[str, Any]:
    """What `med_config.json` says of the text encoder, with the vocabulary of the tiny tokenizer and two more."""
    return {
        "architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "hidden_size": TEXT_WIDTH, "initializer_range": 0.02, "intermediate_size": 64,
        "layer_norm_eps": 1e-12, "max_position_embeddings": 64, "model_type": "bert", "num_attention_heads": 4,
        "num_hidden_layers": DEPTH, "pad_token_id": 0, "type_vocab_size": 2,
        "vocab_size": len(bert_tokenizer()) + 2, "encoder_width": 768, "add_cross_attention": True,
    }  # fmt: skip


def imagereward_state(seed: int = 5) -> dict[str, Any]:
    """All tensors under the authors' names; large enough that scores differ from image to image and text to text."""
    import torch

    generator, state = torch.Generator().manual_seed(seed), {}

    def spread(name: str, *shape: int, scale: float = 1.0) -> None:
        state[name] = scale * torch.randn(*shape, generator=generator)

    def linear(name: str, outputs: int, *inputs: int, gain: float = 1.5) -> None:
        spread(f"{name}.weight", outputs, *inputs, scale=gain / torch.Size(inputs).numel() ** 0.5)
        spread(f"{name}.bias", outputs, scale=0.2)

    def norm(name: str, width: int) -> None:
        spread(f"{name}.weight", width, scale=0.2)
        state[f"{name}.weight"] += 1
        spread(f"{name}.bias", width, scale=0.2)

    vision, text, config = "blip.visual_encoder", "blip.text_encoder", med_config()
    spread(f"{vision}.cls_token", 1, 1, WIDTH)
    spread(f"{vision}.pos_embed", 1, (224 // PATCH) ** 2 + 1, WIDTH, scale=0.5)
    linear(f"{vision}.patch_embed.proj", WIDTH, 3, PATCH, PATCH)
    for block in (f"{vision}.blocks.{number}" for number in range(DEPTH)):
        norm(f"{block}.norm1", WIDTH)
        linear(f"{block}.attn.qkv", 3 * WIDTH, WIDTH)
        linear(f"{block}.attn.proj", WIDTH, WIDTH)
        norm(f"{block}.norm2", WIDTH)
        linear(f"{block}.mlp.fc1", 4 * WIDTH, WIDTH)
        linear(f"{block}.mlp.fc2", WIDTH, 4 * WIDTH)
    norm(f"{vision}.norm", WIDTH)

    state[f"{text}.embeddings.position_ids"] = torch.arange(config["max_position_embeddings"])[None]
    spread(f"{text}.embeddings.word_embeddings.weight", config["vocab_size"], TEXT_WIDTH)
    spread(f"{text}.embeddings.position_embeddings.weight", config["max_position_embeddings"], TEXT_WIDTH, scale=0.5)
    norm(f"{text}.embeddings.LayerNorm", TEXT_WIDTH)
    for layer in (f"{text}.encoder.layer.{number}" for number in range(DEPTH)):
        for attention, width in (("attention", TEXT_WIDTH), ("crossattention", WIDTH)):
            linear(f"{layer}.{attention}.self.query", TEXT_WIDTH, TEXT_WIDTH)
            linear(f"{layer}.{attention}.self.key", TEXT_WIDTH, width)
            linear(f"{layer}.{attention}.self.value", TEXT_WIDTH, width)
            linear(f"{layer}.{attention}.output.dense", TEXT_WIDTH, TEXT_WIDTH)
            norm(f"{layer}.{attention}.output.LayerNorm", TEXT_WIDTH)
        linear(f"{layer}.intermediate.dense", config["intermediate_size"], TEXT_WIDTH)
        linear(f"{layer}.output.dense", TEXT_WIDTH, config["intermediate_size"])
        norm(f"{layer}.output.LayerNorm", TEXT_WIDTH)
    linear("blip.vision_proj", 256, WIDTH)  # of BLIP's pretraining; no score reads them
    linear("blip.text_proj", 256, TEXT_WIDTH)
    for number, width, before in zip((0, 2, 4, 6, 7), HEAD, (TEXT_WIDTH, *HEAD), strict=False):
        linear(f"mlp.layers.{number}", width, before, gain=1.0)
    return state


def save_imagereward(folder: Path, state: dict[str, Any] | None = None) -> dict[str, str]:
    """`folder/model` and `folder/tokenizer`, as they come from the hub; returns the reward's settings."""
    import torch

    model, tokenizer = folder / "model", folder / "tokenizer"
    model.mkdir(parents=True, exist_ok=True)
    torch.save(imagereward_state() if state is None else state, model / "ImageReward.pt")
    (model / "med_config.json").write_text(json.dumps(med_config()))
    tokenizer.mkdir(exist_ok=True)
    vocabulary = bert_tokenizer().get_vocab()
    (tokenizer / "vocab.txt").write_text("".join(f"{word}\n" for word in sorted(vocabulary, key=vocabulary.get)))
    return {"path": str(model), "tokenizer": str(tokenizer)}
