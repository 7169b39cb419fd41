"""Write a tiny AuraFlow pipeline with random weights: python make_tiny_auraflow.py FOLDER

All classes are the real ones; only the sizes are not, so that the example runs anywhere in seconds.
"""

import sys
from pathlib import Path

import torch
from diffusers import AuraFlowPipeline, AuraFlowTransformer2DModel, AutoencoderKL, FlowMatchEulerDiscreteScheduler
from transformers import UMT5Config, UMT5EncoderModel

from promptecho.shapes.tokenizer import build_tokenizer

TEXT_WIDTH = 32


def build(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(512)
    encoder = UMT5EncoderModel(
        UMT5Config(vocab_size=len(tokenizer), d_model=TEXT_WIDTH, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    ).eval()
    transformer = AuraFlowTransformer2DModel(
        sample_size=16, patch_size=2, in_channels=4, out_channels=4, num_mmdit_layers=1, num_single_dit_layers=1,
        attention_head_dim=16, num_attention_heads=2, joint_attention_dim=TEXT_WIDTH, caption_projection_dim=32,
        pos_embed_max_size=64,
    ).eval()  # fmt: skip
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3, block_out_channels=(8, 8, 8), layers_per_block=1, latent_channels=4,
        norm_num_groups=4, sample_size=64, scaling_factor=0.7,
    ).eval()  # fmt: skip
    with torch.no_grad():  # larger weights than the defaults, so that words and times matter
        for module in (transformer, encoder):
            for parameter in module.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(1.5)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.73)
    pipeline = AuraFlowPipeline(tokenizer, encoder, vae, transformer, scheduler)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return Path(folder)


if __name__ == "__main__":
    print(f"{build(Path(sys.argv[1]))}: written")
