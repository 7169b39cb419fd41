"""The tiny models of moving shapes in the real classes, and the tokenizer of their text encoder."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanTransformer3DModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from promptecho.moving.grammar import STILL, WORDINGS
from promptecho.moving.world import MOTIONS, SHAPES
from promptecho.shapes.world import COLORS

MAX_TOKENS = 16  # the longest caption has 15; what is shorter is padded to it, as in large models to 512
TEXT_DIM = 96
CHANNELS = 16  # of latents
PATCH = 4  # pixels
SHIFT = 3.0


def build_vae(mean: list[float] | None = None, std: list[float] | None = None) -> AutoencoderKLWan:
    """5 frames of 32x32x3 pixels to 16x5x8x8 latents: blocks of 4x4 pixels, as Wan2.2's has blocks, and none of the
    layers that join neighbours or frames; `fit_vae` (vae.py) sets its weights."""
    return AutoencoderKLWan(
        base_dim=2 * CHANNELS + 1,
        z_dim=CHANNELS,
        dim_mult=[1],
        num_res_blocks=0,
        attn_scales=[],
        temperal_downsample=[],
        latents_mean=mean or [0.0] * CHANNELS,
        latents_std=std or [1.0] * CHANNELS,
        in_channels=3 * PATCH**2,
        out_channels=3 * PATCH**2,
        patch_size=PATCH,
        scale_factor_temporal=1,
        scale_factor_spatial=PATCH,
    )


def build_transformer() -> WanTransformer3DModel:
    """The velocity network: 5x4x4 tokens of the video, 4 heads of 24."""
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=4,
        attention_head_dim=24,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=TEXT_DIM,
        freq_dim=64,
        ffn_dim=320,
        num_layers=4,
        rope_max_seq_len=64,
    )


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each word of the captions' language, and one that ends a caption."""
    phrases = [*SHAPES, *COLORS, *MOTIONS, *STILL, *(one.format(motion="") for one in WORDINGS), "a", "and", "."]
    words = sorted({word for phrase in phrases for word in phrase.split()})
    vocabulary = {word: index for index, word in enumerate(["<pad>", "</s>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", vocabulary["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=MAX_TOKENS
    )


def build_text_encoder(tokenizer: Any) -> UMT5EncoderModel:
    """As Wan's text encoder, with two layers."""
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(tokenizer),
            d_model=TEXT_DIM,
            d_kv=32,
            d_ff=192,
            num_layers=2,
            num_heads=3,
            relative_attention_num_buckets=16,
            relative_attention_max_distance=32,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
        )
    )


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Static shift, as Wan2.1 has at 480 pixels."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT)


def per_channel(values: list[float]) -> torch.Tensor:
    """[1, channels, 1, 1, 1]"""
    return torch.tensor(values).view(1, -1, 1, 1, 1)
