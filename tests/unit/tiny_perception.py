"""A tiny Mask2Former and a tiny CLIP with random weights in the real classes, in a folder as users keep them."""

from __future__ import annotations

from pathlib import Path


def tiny_mask2former(seed: int = 0, num_labels: int = 80):
    """A detector with random weights that answers with confidence and finds small things."""
    import torch
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    torch.manual_seed(seed)
    backbone = SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=5, mlp_ratio=2.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=32,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=32, num_queries=12,
        num_labels=num_labels,
    )  # fmt: skip
    model = Mask2FormerForUniversalSegmentation(config)
    embedder = model.model.transformer_module.decoder.mask_predictor.mask_embedder
    projection = model.model.pixel_level_module.decoder.mask_projection
    with torch.no_grad():
        model.class_predictor.weight.mul_(30)
        for parameter in embedder.parameters():
            parameter.mul_(3)
        # One channel lowers all mask logits, else most masks would cover the image.
        *_, weight, bias = embedder.parameters()
        weight[0], bias[0], projection.weight[0], projection.bias[0] = 0, 2, 0, -1
    return model


def tiny_tokenizer():
    """CLIP's tokenizer over single bytes."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[])


def tiny_clip(vocab_size: int, seed: int = 0):
    import torch
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(seed)
    text = {
        "vocab_size": vocab_size, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,  # as OpenAI's checkpoint has
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 224, "patch_size": 32,
    }  # fmt: skip
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
    with torch.no_grad():  # spread out, so that answers differ from crop to crop
        for name, parameter in model.named_parameters():
            if name.endswith("weight") and parameter.ndim > 1:
                parameter.mul_(8)
    return model


def save_perception(folder: Path) -> Path:
    """`folder/mask2former` and `folder/clip`, as an offline cluster keeps them."""
    tiny_mask2former().save_pretrained(folder / "mask2former")
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder / "clip")
    tiny_clip(len(tokenizer)).save_pretrained(folder / "clip")
    return folder
