"""A tiny policy that has learnt something, a batch to train it on, and processes that partition all of it (ZeRO-3)."""

from __future__ import annotations

from pathlib import Path

import tiny_qwenimage
import tiny_t2i
import torch
from forked import ranks, run

from promptecho.config.training import TrainingConfig
from promptecho.config.training_parts import LoraSection
from promptecho.t2i.lora import add_lora, trained_parameters
from promptecho.t2i.registry import load_family
from promptecho.train.data import Batch

FOLDERS = {"zimage": tiny_t2i.shared_folder, "qwenimage": tiny_qwenimage.shared_folder}
TRAINING = TrainingConfig(lora={"rank": 4, "alpha": 8}, kl_base={"weight": 0.1})
PROMPTS = ["A red circle.", "The image shows a ring and a black cross, and three blue squares."]


def adapted(name: str, dtype: str, *, checkpointing="off", lora: LoraSection = TRAINING.lora, folder=None):
    """A family with an adapter that is no longer the identity."""
    family = load_family(name, str(folder or FOLDERS[name]()), dtype=dtype)
    if checkpointing != "off":
        family.enable_activation_checkpointing(checkpointing)
    family.transformer = add_lora(family.transformer, lora, 0, family.lora_targets)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trained_parameters(family.transformer).values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return family


def batch_of(family, n: int = 2) -> Batch:
    """`n` images at one timestep each, prompts of different lengths."""
    generator = torch.Generator().manual_seed(1)
    shape = (n, *family.latent_shape(64, 64))
    x0, noise, reference = (torch.randn(shape, generator=generator) for _ in range(3))
    t, advantages = torch.linspace(0.3, 0.7, n)[None], torch.linspace(1, -0.5, n, dtype=torch.float64)
    return Batch(
        list("abcd")[:n], x0, family.encode_prompts(PROMPTS) * (n // 2), advantages, t, noise[None],
        torch.full((1, n), -1.0, dtype=torch.float64), base_velocity=reference[None],
    )  # fmt: skip


def two_ranks(arguments: list[str]) -> None:
    """Two processes of partition_everything.py."""
    run(arguments, ranks(2), script=Path(__file__).with_name("partition_everything.py"))
