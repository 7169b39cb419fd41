"""A tiny QwenImagePipeline with random weights in the real classes, written to a folder; made once per process."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from temp_folder import temp_folder

TEXT_DIM = 32


def build(folder: Path, *, seed: int = 0, layers: int = 2) -> Path:
    """Write a pipeline of `layers` double-stream blocks and 4 latent channels; images are 8 times as large."""
    from diffusers import QwenImagePipeline

    QwenImagePipeline(**parts(seed, layers)).save_pretrained(folder, safe_serialization=True)
    return Path(folder)


def parts(seed: int, layers: int, *, patch_size: int = 4, context: int = 512, **transformer_options) -> dict:
    """The parts of such a pipeline; `patch_size` is that of the text encoder's eye, `context` its longest text."""
    import torch
    from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from promptecho.shapes.tokenizer import build_tokenizer

    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    text_encoder = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config=dict(
                vocab_size=len(tokenizer), hidden_size=TEXT_DIM, intermediate_size=64, num_hidden_layers=2,
                num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=context,
                rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
                pad_token_id=tokenizer.pad_token_id, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
            ),
            vision_config=dict(
                depth=1, hidden_size=32, intermediate_size=32, num_heads=2, out_hidden_size=TEXT_DIM,
                patch_size=patch_size, fullatt_block_indexes=[0],
            ),
            **{
                f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
                for name, token in (
                    ("image", "image_pad"), ("video", "video_pad"), ("vision_start", "vision_start"),
                    ("vision_end", "vision_end"),
                )
            },
        )
    )  # fmt: skip
    transformer = QwenImageTransformer2DModel(
        in_channels=16, out_channels=4, num_layers=layers, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=TEXT_DIM, axes_dims_rope=(4, 6, 6), **transformer_options,
    )  # fmt: skip
    vae = AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.5, 0.8, 1.0, 2.0],
    )  # fmt: skip
    with torch.no_grad():  # larger weights than the default, so that words and times matter
        for module in (text_encoder, transformer):
            for parameter in module.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(1.5)
    # As published for Qwen-Image.
    scheduler = FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000, shift=1.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9,
        base_image_seq_len=256, max_image_seq_len=8192, shift_terminal=0.02, time_shift_type="exponential",
    )  # fmt: skip
    return {
        "scheduler": scheduler, "vae": vae, "text_encoder": text_encoder, "tokenizer": tokenizer,
        "transformer": transformer,
    }  # fmt: skip


@cache
def shared_folder() -> Path:
    """One tiny pipeline for all tests of this process."""
    return build(temp_folder("tiny-qwenimage-") / "t2i")
