"""Attention of a vision tower among the patches of each image, or of each window, without a call for every one.

The library's scaled-dot-product path calls the kernel once for every stretch of patches that see each other: for eight
images of 1024 pixels 800 windows in each layer of Qwen2.5-VL. Here stretches of one length are one call. Each
keeps its own arithmetic, so results are the same.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

# The library hands whole sequences and their boundaries to implementations with "flash" in their name.
NAME = "promptecho_packed_flash"


def packed_attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: None = None, *,
    cu_seq_lens_q: torch.Tensor, scaling: float, dropout: float = 0.0, **_: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Attention of `query`, `key`, `value` [1, heads, patches, width] within the stretches that end at
    `cu_seq_lens_q` [stretches + 1], which are read without a wait if they lie on the host; [1, patches, heads, width].
    """
    lengths = tuple(cu_seq_lens_q.diff().tolist())
    order, back, groups = _grouped(lengths, query.device)
    if order is not None:
        query, key, value = (x.index_select(2, order) for x in (query, key, value))
    sizes = [length * count for length, count in groups]
    found = []
    for (length, _), *parts in zip(groups, *(x.split(sizes, dim=2) for x in (query, key, value)), strict=True):
        q, k, v = (x[0].unflatten(1, (-1, length)).transpose(0, 1) for x in parts)  # [count, heads, length, width]
        found.append(F.scaled_dot_product_attention(q, k, v, scale=scaling).transpose(1, 2).flatten(0, 1))
    joined = found[0] if len(found) == 1 else torch.cat(found)
    return (joined if back is None else joined.index_select(0, back))[None], None


@lru_cache(maxsize=64)
def _grouped(
    lengths: tuple[int, ...], device: torch.device
) -> tuple[torch.Tensor | None, torch.Tensor | None, list[tuple[int, int]]]:
    """How to order patches so that stretches of one length are neighbours, and back; None where they are. Then for
    each length how often it occurs."""
    lasting = list(dict.fromkeys(lengths))
    groups = [(length, lengths.count(length)) for length in lasting]
    if [length for length, count in groups for _ in range(count)] == list(lengths):
        return None, None, groups
    stretches = torch.arange(sum(lengths)).split(lengths)
    order = torch.cat([stretch for length in lasting for stretch in stretches if len(stretch) == length])
    return order.to(device), order.argsort().to(device), groups


AttentionInterface.register(NAME, packed_attention)
