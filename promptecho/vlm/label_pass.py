"""A pass of a Qwen-VL model over labels for which nothing has to be read back from the device.

The library's pass asks the device for numbers that the host has just sent there: how many patches an image has (in
every layer of the vision tower), which tokens are an image's, where padding begins. On a GPU each question waits until
all work so far is done, and the GPU then waits for the host. Here these numbers stay on the host; tensors that follow
from them are made there by the library's own functions. What stands in for a method of the library says so below, acts
only while a `LabelPass` is set (`during`), and computes the same.

Beside that, the language-model head runs on the rows that predict a label's tokens alone, some hundred at a time, and
what leaves it are log-probabilities: logits of all rows (1.3 GB for 16 labels of 260 tokens) are never there at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from promptecho.cluster.device import on_device

FAMILIES = ("qwen2_5_vl", "qwen3_vl")
ROWS = 512  # of float32 logits at a time: 0.3 GB at a vocabulary of 150,000
KEY = "promptecho_label_pass"


@dataclass(frozen=True)
class LabelPass:
    """What the host knows of a pass.

    `grid` [images, 3] stays on the host, and so do boundaries of sequences among `vision`, the vision tower's other
    arguments. `rows` [n] are the places, counted through the batch, whose logits predict `targets` [n].
    """

    grid: torch.Tensor
    vision: dict[str, Any]
    rows: torch.Tensor
    targets: torch.Tensor


def can_stay_on_host(model: Any) -> bool:
    """Whether `prepare` has been at the model."""
    return KEY in vars(model)


@contextmanager
def during(model: Any, facts: LabelPass | None) -> Iterator[None]:
    """Passes inside use `facts`; None: they are the library's own, as those of any other model."""
    if not can_stay_on_host(model):
        yield
        return
    before = vars(model)[KEY]
    vars(model)[KEY] = facts
    try:
        yield
    finally:
        vars(model)[KEY] = before


def prepare(model: Any) -> None:
    """Let a model of one of `FAMILIES`, in the library's class, take a `LabelPass`; others are left alone."""
    kind = model.config.model_type
    if kind not in FAMILIES or not type(model).__module__.startswith(f"transformers.models.{kind}."):
        return
    vars(model)[KEY] = None
    core, head = model.model, model.lm_head
    if core.visual.config._attn_implementation == "sdpa":
        from promptecho.vlm.packed import NAME

        core.visual.config._attn_implementation = NAME
    features, placeholders, logits = core.get_image_features, core.get_placeholder_mask, head.forward

    def get_image_features(pixel_values: torch.Tensor, image_grid_thw: torch.Tensor | None = None, **options: Any):
        facts = vars(model)[KEY]
        if facts is None:
            return features(pixel_values, image_grid_thw, **options)
        return features(pixel_values, facts.grid, **facts.vision, **options)

    def get_placeholder_mask(input_ids: torch.Tensor, **options: Any):
        if vars(model)[KEY] is None:
            return placeholders(input_ids, **options)
        mask = (input_ids == model.config.image_token_id).unsqueeze(-1)  # their number: `facts_of` has compared it
        return mask, None

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        facts = vars(model)[KEY]
        if facts is None:
            return logits(hidden)
        rows = hidden.flatten(0, 1).index_select(0, facts.rows)
        parts = zip(rows.split(ROWS), facts.targets.split(ROWS), strict=True)
        return torch.cat([-F.cross_entropy(logits(part).float(), target, reduction="none") for part, target in parts])

    core.get_image_features, core.get_placeholder_mask, head.forward = get_image_features, get_placeholder_mask, forward
    if hasattr(core.language_model, "_deepstack_process"):
        core.language_model._deepstack_process = _add_to_images


def _add_to_images(hidden: torch.Tensor, mask: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """`hidden` [B, T, width] with `features` [n, width] added at the n places of `mask` [B, T]; the library's reads
    from the device how many these are."""
    mask = mask[..., None]
    return torch.where(mask, hidden + torch.zeros_like(hidden).masked_scatter(mask, features.to(hidden.dtype)), hidden)


def facts_of(model: Any, batch: dict[str, torch.Tensor], rows: torch.Tensor, targets: torch.Tensor, device: Any):
    """The pass over a processed `batch` on the host (its `pixel_values` may be elsewhere), and the model's arguments.

    Raises:
        ValueError: the processor made another number of places for an image than the model needs.
    """
    from transformers import vision_utils
    from transformers.utils.generic import is_flash_attention_requested

    from promptecho.vlm.packed import NAME

    core, grid = model.model, batch["image_grid_thw"]
    visual = core.visual
    merge = visual.spatial_merge_size
    places, needed = int((batch["input_ids"] == model.config.image_token_id).sum()), int(grid.prod(1).sum()) // merge**2
    if places != needed:
        raise ValueError(f"{places} places for images of {needed} tokens")
    ends = vision_utils.get_vision_cu_seqlens(grid)
    vision: dict[str, Any] = {
        "image_cu_seqlens": ends, "image_max_seqlen": int(ends.diff().max()),
        "image_position_ids": on_device(vision_utils.get_vision_position_ids(grid, merge), device),
    }  # fmt: skip
    if model.config.model_type == "qwen2_5_vl":
        index, window_ends = vision_utils.get_vision_window_index(grid, merge, visual.window_size, visual.patch_size)
        vision |= {"image_window_index": on_device(index, device), "image_cu_window_seqlens": window_ends}
        vision["image_max_window_seqlen"] = int(window_ends.diff().max())
    else:
        indices, weights = vision_utils.get_vision_interpolation_indices_and_weights(
            grid, visual.num_grid_per_side, visual.interpolation_mode, visual.interpolation_align_corners, merge
        )
        vision |= {
            "image_interp_indices": on_device(indices, device), "image_interp_weights": on_device(weights, device),
        }  # fmt: skip
    if is_flash_attention_requested(visual.config) and visual.config._attn_implementation != NAME:
        for key in [key for key in vision if key.endswith("cu_seqlens")]:
            vision[key] = on_device(vision[key], device)  # its kernels read them there
    mask = batch["attention_mask"]
    positions, _ = core.get_rope_index(
        batch["input_ids"], mm_token_type_ids=batch["mm_token_type_ids"], image_grid_thw=grid, attention_mask=mask
    )
    # Padding is behind all that counts, where a causal model does not see it. With a mask the CPU's bits are kept.
    masked = device.type == "cpu" and not bool(mask.all())
    inputs = {
        "input_ids": on_device(batch["input_ids"], device), "position_ids": on_device(positions, device),
        "attention_mask": mask if masked else None, "pixel_values": batch["pixel_values"], "image_grid_thw": grid,
    }  # fmt: skip
    return LabelPass(grid, vision, on_device(rows, device), on_device(targets, device)), inputs
