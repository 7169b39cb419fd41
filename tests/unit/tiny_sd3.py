"""A tiny StableDiffusion3Pipeline with random weights in the real classes, written to a folder; made once a process."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from temp_folder import temp_folder

CLIP_WIDTH, T5_WIDTH = 16, 32


def build(folder: Path, seed: int = 0) -> Path:
    """Write a pipeline as Stable Diffusion 3.5 medium is: two blocks with norms of queries and keys, of which the first
    attends to the image twice; 4 latent channels, and positions for 64 x 64 pixels."""
    import torch
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

    from promptecho.shapes.tokenizer import build_tokenizer

    torch.manual_seed(seed)
    tokenizer = build_tokenizer(77)

    def clip() -> CLIPTextModelWithProjection:
        return CLIPTextModelWithProjection(
            CLIPTextConfig(
                vocab_size=len(tokenizer), hidden_size=CLIP_WIDTH, intermediate_size=32, num_hidden_layers=2,
                num_attention_heads=2, max_position_embeddings=77, projection_dim=CLIP_WIDTH, bos_token_id=None,
                eos_token_id=tokenizer.pad_token_id, pad_token_id=tokenizer.pad_token_id,
            )
        )  # fmt: skip

    t5 = T5EncoderModel(
        T5Config(vocab_size=len(tokenizer), d_model=T5_WIDTH, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    )
    transformer = SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=T5_WIDTH, caption_projection_dim=32,
        pooled_projection_dim=2 * CLIP_WIDTH, pos_embed_max_size=8, dual_attention_layers=(0,), qk_norm="rms_norm",
    )  # fmt: skip
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3, block_out_channels=(8, 8, 8), layers_per_block=1, latent_channels=4,
        norm_num_groups=4, sample_size=64, scaling_factor=0.7, shift_factor=0.1, use_quant_conv=False,
        use_post_quant_conv=False,
    )  # fmt: skip
    with torch.no_grad():  # larger weights than the defaults, so that words and times matter
        for module in (transformer, t5):
            for parameter in module.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(1.5)
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=vae,
        text_encoder=clip(), tokenizer=tokenizer, text_encoder_2=clip(), tokenizer_2=tokenizer,
        text_encoder_3=t5, tokenizer_3=build_tokenizer(512),
    )  # fmt: skip
    pipeline.save_pretrained(folder, safe_serialization=True)
    return Path(folder)


@cache
def shared_folder() -> Path:
    """One tiny pipeline for all tests of this process."""
    return build(temp_folder("tiny-sd3-") / "t2i")
