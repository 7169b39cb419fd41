"""A tiny Flux2KleinPipeline with random weights in the real classes, written to a folder; made once per process."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from temp_folder import temp_folder

TEXT_WIDTH = 16


def build(folder: Path, *, seed: int = 0, is_distilled: bool = False) -> Path:
    """Write a pipeline of two double-stream and two single-stream blocks and 4 latent channels. Its text encoder has 28
    layers, since the pipeline takes the states behind three of them."""
    import torch
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2KleinPipeline,
        Flux2Transformer2DModel,
    )
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from promptecho.shapes.tokenizer import build_tokenizer

    torch.manual_seed(seed)
    tokenizer = build_tokenizer(512)
    text_encoder = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer), hidden_size=TEXT_WIDTH, intermediate_size=32, num_hidden_layers=28,
            num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=512,
            pad_token_id=tokenizer.pad_token_id, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        )
    )  # fmt: skip
    transformer = Flux2Transformer2DModel(
        patch_size=1, in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=3 * TEXT_WIDTH, timestep_guidance_channels=16, mlp_ratio=2.0, axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )  # fmt: skip
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=64,
    )  # fmt: skip
    with torch.no_grad():  # larger weights than the defaults, so that words and times matter
        for module in (transformer, text_encoder):
            for parameter in module.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(1.5)
        vae.bn.running_mean.normal_(0, 0.3)  # as no trained VAE has zeros and ones
        vae.bn.running_var.uniform_(0.5, 2.0)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    pipeline = Flux2KleinPipeline(scheduler, vae, text_encoder, tokenizer, transformer, is_distilled=is_distilled)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return Path(folder)


@cache
def shared_folder() -> Path:
    """One tiny pipeline for all tests of this process."""
    return build(temp_folder("tiny-flux2-") / "t2i")
