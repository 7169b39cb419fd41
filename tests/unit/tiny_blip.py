"""A tiny BLIP-VQA and a tiny CLIP with random weights in the real classes, in a folder as users keep them."""

from __future__ import annotations

import string
from pathlib import Path

from tiny_perception import tiny_clip, tiny_tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def bert_tokenizer(words: tuple[str, ...] = ("yes", "no")):
    """BERT's tokenizer over letters and a few words."""
    from transformers import BertTokenizer

    letters = string.ascii_lowercase + string.digits + string.punctuation
    entries = [*SPECIAL, *words, *letters, *("##" + letter for letter in letters)]
    return BertTokenizer(vocab={entry: number for number, entry in enumerate(entries)})


def tiny_blip_vqa(entries: int, seed: int = 0):
    """BLIP-VQA for a tokenizer of `entries`, behind which are [DEC] and [ENC]."""
    import torch
    from transformers import BlipConfig, BlipForQuestionAnswering

    torch.manual_seed(seed)
    text = {
        "vocab_size": entries + 2, "bos_token_id": entries, "pad_token_id": 0, "sep_token_id": 3, "hidden_size": 32,
        "encoder_hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 64, "projection_dim": 16,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 384, "patch_size": 96, "projection_dim": 16, "initializer_range": 0.02,
    }  # fmt: skip
    model = BlipForQuestionAnswering(BlipConfig(text_config=text, vision_config=vision, projection_dim=16))
    with torch.no_grad():  # spread out, so that answers differ from image to image
        for name, parameter in model.named_parameters():
            if name.endswith("weight") and parameter.ndim > 1:
                parameter.mul_(8)
    return model.eval()


def save_blip_and_clip(folder: Path) -> Path:
    """`folder/blip-vqa` and `folder/clip`, as an offline cluster keeps them."""
    words, letters = bert_tokenizer(), tiny_tokenizer()
    words.save_pretrained(folder / "blip-vqa")
    tiny_blip_vqa(len(words)).save_pretrained(folder / "blip-vqa")
    letters.save_pretrained(folder / "clip")
    tiny_clip(len(letters)).save_pretrained(folder / "clip")
    return folder
