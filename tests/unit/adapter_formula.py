"""Weights by formula, so that a test knows what an adapter changes without any tool's code."""

from __future__ import annotations

import torch


def half(name: str, which: str, rows: int, columns: int) -> torch.Tensor:
    """[rows, columns] in float64: numbers between -0.3 and 0.3 that depend on the module's name and the half."""
    seed = sum(ord(letter) * (place + 1) for place, letter in enumerate(name)) % 97 + (50 if which == "up" else 0)
    grid = torch.arange(rows * columns, dtype=torch.float64).reshape(rows, columns)
    return 0.3 * torch.sin(0.7 * grid + seed)


def pair(name: str, shape: tuple[int, int], rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Down [rank, in] and up [out, rank] of a module with weight [out, in]."""
    return half(name, "down", rank, shape[1]), half(name, "up", shape[0], rank)
