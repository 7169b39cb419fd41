"""Models of real size, or tiny ones, with random weights: written to a folder once, loaded like downloaded ones.

Speed and memory don't depend on the weights, as long as activations stay finite. Architectures are those that
`promptecho plan` computes with, so that its figures and the measured ones are about
the same models. The tokenizer is that of the embedded world: a real Qwen2 one with few tokens, whose ids all exist in
the large vocabularies too.
"""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

NAMES = {"zimage": "Tongyi-MAI/Z-Image", "qwen3vl-8b": "Qwen/Qwen3-VL-8B-Instruct"}
STD = 0.02  # of all matrices and kernels; norms and biases are left at one and zero
CONTEXT = 4096  # tokens that the tokenizer is told are allowed

TINY_T2I: dict[str, Any] = {
    "transformer": {
        "all_f_patch_size": [1], "all_patch_size": [2], "axes_dims": [8, 4, 4], "axes_lens": [512, 64, 64],
        "cap_feat_dim": 32, "dim": 32, "in_channels": 4, "n_heads": 2, "n_kv_heads": 2, "n_layers": 2,
        "n_refiner_layers": 1, "norm_eps": 1e-5, "qk_norm": True, "rope_theta": 256.0, "t_scale": 1000.0,
    },
    "text_encoder": {
        "model_type": "qwen3", "head_dim": 16, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2,
        "num_hidden_layers": 2, "num_key_value_heads": 1, "max_position_embeddings": 512, "vocab_size": 600,
    },
    "vae": {
        "block_out_channels": [8, 8, 8], "down_block_types": ["DownEncoderBlock2D"] * 3, "latent_channels": 4,
        "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 32, "scaling_factor": 0.7, "shift_factor": 0.1,
        "up_block_types": ["UpDecoderBlock2D"] * 3, "use_post_quant_conv": False, "use_quant_conv": False,
    },
    "scheduler": {"num_train_timesteps": 1000, "shift": 3.0, "use_dynamic_shifting": False},
}  # fmt: skip
TINY_VLM: dict[str, Any] = {
    "config": {
        "model_type": "qwen3_vl", "tie_word_embeddings": True,
        "text_config": {
            "head_dim": 16, "hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 512,
            "model_type": "qwen3_vl_text", "num_attention_heads": 2, "num_hidden_layers": 2, "num_key_value_heads": 1,
            "rope_parameters": {
                "mrope_interleaved": True, "mrope_section": [4, 2, 2], "rope_theta": 10000.0, "rope_type": "default",
            },
            "vocab_size": 600,
        },
        "vision_config": {
            "deepstack_visual_indexes": [0], "depth": 2, "hidden_size": 32, "intermediate_size": 64,
            "model_type": "qwen3_vl", "num_heads": 2, "num_position_embeddings": 64, "out_hidden_size": 32,
            "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
    },
    "preprocessor": {
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "merge_size": 2, "patch_size": 4, "temporal_patch_size": 2,
        "size": {"longest_edge": 4096, "shortest_edge": 64},
    },
}  # fmt: skip


def architecture(name: str, tiny: dict[str, Any], use_tiny: bool) -> dict[str, Any]:
    """The description of a model of real size (zimage, qwen3vl-8b), or the tiny one."""
    from promptecho.plan.architectures import description

    return copy.deepcopy(tiny) if use_tiny else description(NAMES[name])


def zimage(folder: Path, device: torch.device, dtype: torch.dtype, *, tiny: bool) -> Path:
    """A Z-Image pipeline (6B, with a 4B text encoder; 21 GB in bfloat16) in `folder`, unless it is there already."""
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
    from transformers import AutoConfig, Qwen3Model

    from promptecho.shapes.tokenizer import build_tokenizer

    def build(into: Path) -> None:
        parts = architecture("zimage", TINY_T2I, tiny)
        tokenizer = build_tokenizer(CONTEXT)
        ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
        with _new_on(device, dtype):
            transformer = randomised(ZImageTransformer2DModel.from_config(parts["transformer"]))
            encoder = randomised(Qwen3Model(AutoConfig.for_model(**{**parts["text_encoder"], **ids})))
            vae = randomised(AutoencoderKL.from_config(parts["vae"]))
        scheduler = FlowMatchEulerDiscreteScheduler(**parts["scheduler"])
        ZImagePipeline(scheduler, vae, encoder, tokenizer, transformer).save_pretrained(into)

    return _once(folder, build)


def qwen3vl(folder: Path, device: torch.device, dtype: torch.dtype, *, tiny: bool) -> Path:
    """A Qwen3-VL (8B; 18 GB in bfloat16) in `folder`, unless it is there already."""
    from transformers import AutoConfig, GenerationConfig, Qwen3VLForConditionalGeneration

    from promptecho.shapes.tokenizer import build_tokenizer

    def build(into: Path) -> None:
        parts = architecture("qwen3vl-8b", TINY_VLM, tiny)
        tokenizer = build_tokenizer(CONTEXT)
        token = tokenizer.convert_tokens_to_ids
        config = AutoConfig.for_model(
            **{
                **parts["config"], "image_token_id": token("<|image_pad|>"), "video_token_id": token("<|video_pad|>"),
                "vision_start_token_id": token("<|vision_start|>"), "vision_end_token_id": token("<|vision_end|>"),
            }
        )  # fmt: skip
        with _new_on(device, dtype):
            model = randomised(Qwen3VLForConditionalGeneration(config))
        model.generation_config = GenerationConfig(
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
        )
        model.save_pretrained(into)
        tokenizer.save_pretrained(into)
        kinds = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen3VLProcessor"}
        (into / "preprocessor_config.json").write_text(json.dumps({**kinds, **parts["preprocessor"]}))

    return _once(folder, build)


@torch.no_grad()
def randomised(module: torch.nn.Module) -> torch.nn.Module:
    """Matrices, kernels and learned tokens drawn anew, small enough for deep networks to stay finite."""
    for name, parameter in sorted(module.named_parameters()):
        if parameter.ndim > 1 or "token" in name:
            parameter.normal_(0, STD)
    return module


def prompts(n: int, n_tokens: int) -> list[str]:
    """`n` different captions of the embedded world of about `n_tokens` tokens each."""
    from promptecho.bench.context import made_up
    from promptecho.shapes.tokenizer import build_tokenizer

    return made_up([n_tokens] * n, build_tokenizer(CONTEXT))


@contextlib.contextmanager
def _new_on(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)


def _once(folder: Path, build) -> Path:
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        build(partial)
        partial.rename(folder)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return folder
