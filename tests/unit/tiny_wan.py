"""A tiny WanPipeline with random weights in the real classes, written to a folder; made once per process."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from temp_folder import temp_folder

WIDTH = 32  # of text


def build(folder: Path, *, seed: int = 0, scheduler: Any = None, expand_timesteps: bool = False) -> Path:
    """Write a pipeline of two blocks and 4 latent channels, whose VAE makes one latent frame of every 4 and one latent
    of every 4 x 4 pixels. `scheduler`: None is UniPC with the settings that Wan2.1 comes with."""
    import torch
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(seed)
    tokenizer = ending_tokenizer()
    encoder = UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(tokenizer), d_model=WIDTH, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
            relative_attention_num_buckets=8, relative_attention_max_distance=32, dropout_rate=0.0,
            pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    transformer = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, text_dim=WIDTH, freq_dim=16,
        ffn_dim=32, num_layers=2, rope_max_seq_len=64,
    )  # fmt: skip
    vae = AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1], num_res_blocks=1, temperal_downsample=[True, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.5, 0.7, 2.0, 1.0], scale_factor_temporal=4,
        scale_factor_spatial=4,
    )  # fmt: skip
    with torch.no_grad():  # larger weights than the defaults, so that words and times matter
        for module in (transformer, encoder):
            for parameter in module.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(1.5)
    scheduler = scheduler or UniPCMultistepScheduler(
        num_train_timesteps=1000, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    pipeline = WanPipeline(tokenizer, encoder, vae, scheduler, transformer, expand_timesteps=expand_timesteps)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return Path(folder)


def ending_tokenizer() -> Any:
    """The shapes world's with a token behind each text, as T5's tokenizers have it."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    from promptecho.shapes.tokenizer import build_tokenizer

    known = build_tokenizer(512)
    backend, end = known.backend_tokenizer, known.eos_token
    backend.post_processor = TemplateProcessing(single=f"$A {end}", special_tokens=[(end, known.eos_token_id)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=end, pad_token=known.pad_token, model_max_length=512
    )


@cache
def shared_folder() -> Path:
    """One tiny pipeline for all tests of this process."""
    return build(temp_folder("tiny-wan-") / "t2i")
