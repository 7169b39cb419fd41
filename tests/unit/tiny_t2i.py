"""A tiny ZImagePipeline with random weights in the real classes, written to a folder; made once per process."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from temp_folder import temp_folder

TEXT_DIM = 32


def build(folder: Path, *, seed: int = 0, layers: int = 2, dim: int = 32, **scheduler) -> Path:
    """Write a pipeline of `layers` blocks of width `dim`, 4 latent channels; `scheduler`: its options."""
    import torch
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    from promptecho.shapes.tokenizer import build_tokenizer

    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    text_encoder = Qwen3Model(
        Qwen3Config(
            vocab_size=len(tokenizer), hidden_size=TEXT_DIM, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, head_dim=16, max_position_embeddings=512,
            pad_token_id=tokenizer.pad_token_id, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        )
    )  # fmt: skip
    transformer = ZImageTransformer2DModel(
        all_patch_size=(2,), all_f_patch_size=(1,), in_channels=4, dim=dim, n_layers=layers, n_refiner_layers=1,
        n_heads=2, n_kv_heads=2, norm_eps=1e-5, qk_norm=True, cap_feat_dim=TEXT_DIM, rope_theta=256.0,
        t_scale=1000.0, axes_dims=[dim // 4, dim // 8, dim // 8], axes_lens=[512, 64, 64],
    )  # fmt: skip
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3, block_out_channels=(8, 8, 8), layers_per_block=1, latent_channels=4,
        norm_num_groups=4, sample_size=32, scaling_factor=0.7, shift_factor=0.1, use_quant_conv=False,
        use_post_quant_conv=False,
    )  # fmt: skip
    with torch.no_grad():  # pad tokens are not initialised by the class; larger weights make words and times matter
        for name, parameter in sorted(transformer.named_parameters()):
            if name.endswith("pad_token"):
                parameter.normal_(0, 0.02)
        for module in (text_encoder, transformer):
            for parameter in module.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(1.5)
    options = {"num_train_timesteps": 1000, "shift": 3.0, "use_dynamic_shifting": False, **scheduler}
    pipeline = ZImagePipeline(FlowMatchEulerDiscreteScheduler(**options), vae, text_encoder, tokenizer, transformer)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return Path(folder)


@cache
def shared_folder() -> Path:
    """One tiny pipeline for all tests of this process."""
    return build(temp_folder("tiny-t2i-") / "t2i")


@cache
def shallow_folder() -> Path:
    """The same with one layer, for what takes many passes and does not ask how many layers there are."""
    return build(temp_folder("tiny-t2i-") / "t2i", layers=1)
