"""The tiny models in the real classes: their configurations, and the one start value that is not the class's own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel
from transformers import (
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3Model,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from promptecho.shapes.world import IMAGE_SIZE

TEXT_DIM = 160
VLM_PATCH, VLM_MERGE = 8, 2


@dataclass(frozen=True)
class VlmSize:
    """Widths and depths of the VLM's two towers; a head is 32 wide."""

    width: int
    layers: int
    text_intermediate: int
    vision_intermediate: int


VLM_SIZES = {  # 3.4, 1.2 and 0.39 million parameters
    "full": VlmSize(160, 4, 432, 480),
    "third": VlmSize(96, 4, 240, 264),
    "tenth": VlmSize(64, 2, 160, 176),
}


def build_vae() -> AutoencoderKL:
    """64x64x3 pixels to 16x16x4 latents."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=IMAGE_SIZE,
        scaling_factor=1.0,
        shift_factor=0.0,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def build_transformer() -> ZImageTransformer2DModel:
    """The velocity network: 8x8 image tokens and 32 text tokens, 5 heads of 32."""
    return ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=4,
        dim=160,
        n_layers=5,
        n_refiner_layers=1,
        n_heads=5,
        n_kv_heads=5,
        norm_eps=1e-5,
        qk_norm=True,
        cap_feat_dim=TEXT_DIM,
        rope_theta=256.0,
        t_scale=1000.0,
        axes_dims=[8, 12, 12],
        axes_lens=[512, 64, 64],
    )


def build_text_encoder(tokenizer: Qwen2Tokenizer) -> Qwen3Model:
    """Qwen3 decoder; the pipeline reads the hidden states before its last layer."""
    return Qwen3Model(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_DIM,
            intermediate_size=384,
            num_hidden_layers=3,
            num_attention_heads=5,
            num_key_value_heads=5,
            head_dim=32,
            max_position_embeddings=512,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Static shift, as Z-Image has (there 6.0 at 1024 px; 4096 dimensions per image here want less)."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=2.0, use_dynamic_shifting=False)


def build_vlm(
    tokenizer: Qwen2Tokenizer, merge: int = VLM_MERGE, size: VlmSize = VLM_SIZES["full"], patch: int = VLM_PATCH
) -> Qwen3VLForConditionalGeneration:
    """64 patches of `patch` x `patch` pixels, `merge` x `merge` of them in one image token (2: 16 tokens), one
    DeepStack level."""

    def token(text: str) -> int:
        found = tokenizer.convert_tokens_to_ids(text)
        assert isinstance(found, int), "one token has one id"
        return found

    return Qwen3VLForConditionalGeneration(
        Qwen3VLConfig(
            text_config={
                "vocab_size": len(tokenizer),
                "hidden_size": size.width,
                "intermediate_size": size.text_intermediate,
                "num_hidden_layers": size.layers,
                "num_attention_heads": size.width // 32,
                "num_key_value_heads": size.width // 32,
                "head_dim": 32,
                "max_position_embeddings": 512,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 10000.0,
                    "mrope_section": [6, 5, 5],
                    "mrope_interleaved": True,
                },
                "tie_word_embeddings": True,
                "pad_token_id": tokenizer.pad_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "bos_token_id": None,
            },
            vision_config={
                "depth": size.layers,
                "hidden_size": size.width,
                "intermediate_size": size.vision_intermediate,
                "num_heads": size.width // 32,
                "patch_size": patch,
                "spatial_merge_size": merge,
                "temporal_patch_size": 2,
                "out_hidden_size": size.width,
                "num_position_embeddings": (IMAGE_SIZE // VLM_PATCH) ** 2,
                "deepstack_visual_indexes": [size.layers // 2 - 1],
            },
            image_token_id=token("<|image_pad|>"),
            video_token_id=token("<|video_pad|>"),
            vision_start_token_id=token("<|vision_start|>"),
            vision_end_token_id=token("<|vision_end|>"),
            tie_word_embeddings=True,
        )
    )


def waves(side: int, width: int) -> torch.Tensor:
    """Waves of column and row for `side` x `side` places: [side * side, width], each value in [-1, 1]."""
    half = width // 2
    frequencies = torch.linspace(0.5, 4, half)
    phases = torch.arange(half) % 2 * math.pi / 2
    line = torch.cos((torch.arange(side) + 0.5)[:, None] * math.pi / side * frequencies + phases)  # [side, half]
    rows = line[:, None, :].expand(side, side, half)
    columns = line[None].expand(side, side, half)
    return torch.cat([rows, columns], dim=-1).reshape(side * side, width)


def spread_positions(vlm: Qwen3VLForConditionalGeneration) -> None:
    """Start the vision tower's position embeddings at waves of column and row, as large as the patch embeddings.

    Qwen3-VL starts from weights that know places. From small random values (std 0.02, against 2.4 of the trained
    patch embeddings) these models never learned which of two objects is the left one.
    """
    weight = vlm.model.visual.pos_embed.weight
    with torch.no_grad():
        weight.copy_(0.5 * waves(math.isqrt(len(weight)), weight.shape[1]))
