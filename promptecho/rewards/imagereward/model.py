"""ImageReward's model in the classes of transformers, from the tensors of the authors' file.

The authors' classes are BLIP's own, a vision transformer whose output a BERT reads by cross attention, with a head on
the BERT's first token. Transformers has the first two; the tensors are the same under other names.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from promptecho.errors import ModelError
from promptecho.rewards.heads import Layers, linear_layers

# Transformers' names of parts of the vision transformer, and the authors'; in this order.
VISION_NAMES = (
    ("embeddings.class_embedding", "cls_token"),
    ("embeddings.position_embedding", "pos_embed"),
    ("embeddings.patch_embedding", "patch_embed.proj"),
    ("encoder.layers.", "blocks."),
    ("self_attn.qkv", "attn.qkv"),
    ("self_attn.projection", "attn.proj"),
    ("post_layernorm", "norm"),
    ("layer_norm", "norm"),
)
VISION, TEXT, HEAD = "blip.visual_encoder.", "blip.text_encoder.", "mlp."
# Of BLIP's pretraining; no score follows from them.
UNREAD = re.compile(r"blip\.(vision|text)_proj\.(weight|bias)|blip\.text_encoder\.embeddings\.position_ids")
HEAD_WIDTH = 64  # of an attention head of the vision transformer, ViT-B's and ViT-L's; no file tells it
VISION_EPS = 1e-6  # of its norms, likewise
TEXT_SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "max_position_embeddings", "hidden_act", "layer_norm_eps", "pad_token_id",
)  # fmt: skip


@dataclass
class ImageRewardModel:
    """`vision` gives what `text` reads, and `head` a number of the text's first token; pixels are `size` x `size`."""

    vision: Any
    text: Any
    head: Layers
    size: int
    vocabulary: int


def build_model(
    tensors: Mapping[str, torch.Tensor], med: Mapping[str, Any], where: str, dtype: torch.dtype = torch.float32
) -> ImageRewardModel:
    """The model of the authors' `tensors` and their `med_config.json`; all other sizes are those of the tensors. The
    head stays in float32.

    Args:
        where: key and file, for messages.

    Raises:
        ModelError: tensors or settings are missing, are too many, or do not fit one another; names them.
    """
    import transformers
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

    if absent := [key for key in TEXT_SIZES if key not in med]:
        raise ModelError(f"{where}: its med_config.json lacks {', '.join(absent)}; take the authors'")
    sizes = _vision_sizes(tensors, where)
    text_sizes = {key: med[key] for key in TEXT_SIZES} | {"encoder_hidden_size": sizes["hidden_size"]}
    try:
        vision = BlipVisionConfig(**sizes, layer_norm_eps=VISION_EPS, hidden_act="gelu")
        # In the library's words a decoder is what has cross attention; it is called as an encoder all the same.
        text = BlipTextConfig(**text_sizes, is_decoder=True, bos_token_id=None)
        with torch.device("meta"):
            empty = BlipVisionModel(vision), BlipTextModel(text, add_pooling_layer=False)
    except Exception as error:  # the library's checks of its settings raise many types
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{where}: cannot make a model of these sizes ({reason}); take the authors' files") from error
    seen = {name: VISION + _theirs(name) for name in empty[0].state_dict()}
    read = {name: TEXT + name for name in empty[1].state_dict()}
    wanted = {
        names[name]: tensor.shape
        for names, model in zip((seen, read), empty, strict=True)
        for name, tensor in model.state_dict().items()
    }
    if problems := [*_problems(tensors, wanted)]:
        raise ModelError(f"{where}: is no ImageReward: {'; '.join(problems)}")
    head = {name.removeprefix(HEAD): tensor for name, tensor in tensors.items() if name.startswith(HEAD)}
    layers = linear_layers(head, text.hidden_size, f"{where}: {HEAD}*", "take the authors' weights")
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    vision_model = BlipVisionModel.from_pretrained(None, config=vision, state_dict=_renamed(tensors, seen), dtype=dtype)
    text_model = BlipTextModel.from_pretrained(
        None, config=text, state_dict=_renamed(tensors, read), dtype=dtype, add_pooling_layer=False
    )
    return ImageRewardModel(
        vision_model.eval().requires_grad_(False),
        text_model.eval().requires_grad_(False),
        layers,
        sizes["image_size"],
        text.vocab_size,
    )


def _vision_sizes(tensors: Mapping[str, torch.Tensor], where: str) -> dict[str, Any]:
    names = [VISION + name for name in ("pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight")]
    if absent := [name for name in names if name not in tensors]:
        raise ModelError(f"{where}: is no ImageReward: lacks {', '.join(absent)}")
    positions, patch, inner = (list(tensors[name].shape) for name in names)
    blocks = {found[1] for name in tensors if (found := re.match(rf"{re.escape(VISION)}blocks\.(\d+)\.", name))}
    fits = len(positions) == 3 and len(patch) == 4 and len(inner) == 2 and min(positions) > 0
    width, grid = (positions[2], math.isqrt(positions[1] - 1)) if fits else (0, 0)
    if not fits or grid**2 + 1 != positions[1] or width % HEAD_WIDTH:
        raise ModelError(
            f"{where}: is no ImageReward: {names[0]} of shape {positions} and {names[1]} of shape {patch} are no "
            f"vision transformer of square images with heads of {HEAD_WIDTH} numbers"
        )
    return {
        "hidden_size": width, "intermediate_size": inner[0], "num_hidden_layers": len(blocks),
        "num_attention_heads": width // HEAD_WIDTH, "image_size": grid * patch[-1], "patch_size": patch[-1],
    }  # fmt: skip


def _theirs(name: str) -> str:
    for ours, authors in VISION_NAMES:
        name = name.replace(ours, authors)
    return name


def _renamed(tensors: Mapping[str, torch.Tensor], names: Mapping[str, str]) -> dict[str, torch.Tensor]:
    return {ours: tensors[authors] for ours, authors in names.items()}


def _problems(tensors: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Size]) -> Iterator[str]:
    """What is wrong with tensors of which those of `wanted` shapes are read, and those of the head."""
    if absent := sorted({*wanted} - {*tensors}):
        yield f"lacks {_some(absent)}"
    known = {name for name in tensors if name in wanted or name.startswith(HEAD) or UNREAD.fullmatch(name)}
    if unknown := sorted({*tensors} - known):
        yield f"holds {_some(unknown)}, which it has no place for"
    for name in sorted({*wanted} & {*tensors}):
        if tensors[name].shape != wanted[name]:
            yield f"{name} is of shape {list(tensors[name].shape)}, not {list(wanted[name])}"
            return


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
