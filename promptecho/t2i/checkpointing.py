"""Selective activation checkpointing: what takes most work is kept, what takes most memory is computed again.

Of a transformer's block, the results of linear layers and of attention are kept (in Z-Image about 12 times the size of
the block's input), so that no matrix product of the base model runs twice. Everything between them (norms, rotations,
gates, most of it in float32) is computed again from these in the backward pass.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from promptecho.compute.blocks import CompiledForward
from promptecho.config.fields import CheckpointingMode
from promptecho.t2i import lora_linear  # noqa: F401  # its operator is one of those that are kept
from promptecho.t2i.base import T2iModel

_ATEN = torch.ops.aten
_PRODUCTS = (_ATEN.mm.default, _ATEN.addmm.default, _ATEN.bmm.default)
_KEPT = (torch.ops.promptecho.lora_linear.default,)


def policy(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Whether an operator's result is kept.

    A product that widens by less than it reads, as an adapter's second one does (rank 64 to thousands), costs little
    for the size of its result: it runs again.
    """
    if operator in _KEPT or "attention" in operator.name() or "flash" in operator.name():
        return CheckpointPolicy.MUST_SAVE
    if operator in _PRODUCTS:
        left, right = args[-2:]
        if left.shape[-1] * WIDENS >= right.shape[-1]:
            return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


WIDENS = 8
_contexts = partial(create_selective_checkpoint_contexts, policy)


def use_checkpointing(family: T2iModel, mode: CheckpointingMode) -> None:
    """Let the model's transformer keep what `mode` says. Without a mode a family means `full`, which is all that one
    from outside need offer."""
    if mode == "full":
        family.enable_activation_checkpointing()
    elif mode != "off":
        family.enable_activation_checkpointing(mode)


def checkpointed(block: nn.Module, *args: Any) -> Any:
    """Run a transformer's block like diffusers' own checkpointing, but for what is kept. Nothing in it is random.

    A compiled block runs as it is: of one graph the compiler itself chooses what is kept, by the same thought.
    """
    if isinstance(block.forward, CompiledForward):
        return block(*args)
    return checkpoint(block.__call__, *args, use_reentrant=False, context_fn=_contexts, preserve_rng_state=False)
