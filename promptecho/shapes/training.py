"""What the three shapes trainings share: optimizer, schedule, log, and a weights folder that is never half-written."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from promptecho.files import atomic_path, read_json, write_json
from promptecho.progress import Progress

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # as torch.optim.Muon has them


class Float32Muon(torch.optim.Optimizer):
    """torch.optim.Muon with `adjust_lr_fn="match_rms_adamw"`, in float32.

    That of torch makes matrices orthogonal in bfloat16, which on a processor without AVX-512 takes longer than the
    forward and backward pass of a small model together.
    """

    def __init__(self, matrices: list[torch.nn.Parameter], lr: float, weight_decay: float, momentum: float = 0.95):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                mean = state.setdefault("momentum", torch.zeros_like(matrix)).lerp_(matrix.grad, 1 - momentum)
                update = orthogonal(matrix.grad.lerp(mean, momentum))
                matrix.mul_(1 - lr * group["weight_decay"])
                matrix.add_(update, alpha=-0.2 * lr * math.sqrt(max(matrix.shape)))


def orthogonal(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """About the orthogonal matrix that is nearest to `matrix`, by Newton-Schulz steps: its singular values come to lie
    between about 0.7 and 1.2."""
    a, b, c = NEWTON_SCHULZ
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class HybridOptimizer:
    """Muon for the matrices inside the blocks, AdamW for embeddings, heads, norms and biases.

    Muon (torch.optim.Muon, or `Float32Muon` with `float32`) reaches the same loss in clearly fewer steps on these small
    transformers, which is what half an hour on one core needs.
    """

    def __init__(
        self, modules: list[torch.nn.Module], lr: float, muon_lr: float, weight_decay: float, float32: bool = False
    ):
        matrices: list[torch.nn.Parameter] = []
        others: list[torch.nn.Parameter] = []
        for module in modules:
            for name, parameter in module.named_parameters():
                inside = "layers." in name or "blocks." in name or "refiner." in name
                (matrices if inside and parameter.ndim == 2 else others).append(parameter)
        self.parameters = matrices + others
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)
        ]
        if matrices and float32:
            self.optimizers.append(Float32Muon(matrices, muon_lr, weight_decay))
        elif matrices:
            muon = torch.optim.Muon(
                matrices, lr=muon_lr, weight_decay=weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
            )
            self.optimizers.append(muon)
        self.base = [group["lr"] for o in self.optimizers for group in o.param_groups]

    def step(self, factor: float, max_norm: float = 1.0) -> float:
        """Clip, step with the learning rates times `factor`, clear gradients; returns the gradient norm."""
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, max_norm))
        groups = [group for o in self.optimizers for group in o.param_groups]
        for group, base in zip(groups, self.base, strict=True):
            group["lr"] = base * factor
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return norm


def take_over(module: torch.nn.Module, tokenizer, trained: torch.nn.Module, its_tokenizer) -> None:
    """Start `module` from a trained one of another vocabulary or with other parts.

    Parameters of the same name and shape are copied. Of the token embeddings, rows are copied by the token's text;
    rows of new tokens keep their random start.
    """
    source, vocabulary = trained.state_dict(), its_tokenizer.get_vocab()
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if name in source and source[name].shape == value.shape:
                value.copy_(source[name])
            elif name.endswith("embed_tokens.weight"):
                for token, row in tokenizer.get_vocab().items():
                    if token in vocabulary:
                        value[row] = source[name][vocabulary[token]]


class Averaged:
    """The moving average of weights while they are trained; at first it follows them closely."""

    def __init__(self, modules: torch.nn.Module) -> None:
        self._modules = modules
        self._average = {name: value.detach().clone() for name, value in modules.state_dict().items()}

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Take in the weights after the `step`-th optimizer step, counted from 0."""
        decay = min(0.998, (1 + step) / (10 + step))
        for name, value in self._modules.state_dict().items():
            self._average[name].lerp_(value, 1 - decay)

    def put_in(self) -> None:
        """Let the modules have the average for good."""
        self._modules.load_state_dict(self._average)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The modules have the average meanwhile, and their weights in float32 again afterwards."""
        live = {name: value.clone() for name, value in self._modules.state_dict().items()}
        self.put_in()
        yield
        self._modules.float().load_state_dict(live)


def save_pipeline(pipeline: Any, out: Path) -> None:
    """Write its folder with half-precision weights; its modules are float32 afterwards."""
    with atomic_path(out) as temporary:
        pipeline.to(torch.float16).save_pretrained(temporary, safe_serialization=True)
        for path in temporary.rglob("config.json"):  # parts would name the folders that they were loaded from
            write_json(path, {key: value for key, value in read_json(path).items() if key != "_name_or_path"})
    pipeline.to(torch.float32)


def trapezoid(step: int, total: int, warmup: int = 100, cooldown: float = 0.35) -> float:
    """Learning-rate factor: linear warm-up, flat, then cosine to zero over the last `cooldown` share."""
    if step < warmup:
        return (step + 1) / warmup
    start = int(total * (1 - cooldown))
    if step < start:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - start) / max(total - start, 1))) + 1e-3


def run(
    what: str,
    steps: int,
    log: Path,
    step_fn: Callable[[int], dict[str, float]],
    every: int = 50,
    checkpoint: Callable[[int], None] | None = None,
    checkpoint_every: int = 1000,
) -> None:
    """Call `step_fn(step)` for every step; average what it returns over `every` steps into a JSONL log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    bar = Progress(what, steps, "steps")
    sums: dict[str, float] = {}
    start = time.monotonic()
    with open(log, "w", encoding="utf-8") as file:
        for step in range(steps):
            for key, value in step_fn(step).items():
                sums[key] = sums.get(key, 0.0) + value
            if (step + 1) % every == 0 or step + 1 == steps:
                n = (step % every) + 1
                row = {"step": step + 1, "seconds": round(time.monotonic() - start, 1)}
                row |= {key: round(value / n, 6) for key, value in sums.items()}
                sums = {}
                file.write(json.dumps(row) + "\n")
                file.flush()
                bar.advance(n, ", ".join(f"{k} {v}" for k, v in row.items() if k not in ("step", "seconds")))
            if checkpoint and (step + 1) % checkpoint_every == 0 and step + 1 < steps:
                checkpoint(step + 1)
