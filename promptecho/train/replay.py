"""Compute a batch again that a failed run left behind: `promptecho train --replay FOLDER`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from promptecho.config import ExperimentConfig, run_training
from promptecho.errors import DataError
from promptecho.t2i.lora import trained_parameters
from promptecho.t2i.trained import make_trainable
from promptecho.train.data import Batch
from promptecho.train.dump import load_batch
from promptecho.train.losses import loss_of
from promptecho.train.setup import load_family


def replay(config: ExperimentConfig, folder: Path, device: torch.device) -> dict[str, Any]:
    """Loss and gradient of every image of a dumped batch, with the weights of that moment.

    Returns:
        {"kind", "iteration", "run", "images": [{"prompt_id", "loss", "grad_norm", "x0_finite", "cond_finite"}]}; a
        value that is not finite is given as text, because JSON has no such numbers.

    Raises:
        DataError: no such dump, or of another model.
    """
    tensors, facts = load_batch(folder)
    training = run_training(config, facts["run"])
    family = load_family(config, device)
    model = family.transformer = make_trainable(family.transformer, training, family.lora_targets)
    parameters = trained_parameters(model)
    with torch.no_grad():
        for name, parameter in parameters.items():
            value = tensors.get(f"weights.{name}")
            if value is None or value.shape != parameter.shape:
                raise DataError(f"{folder}: weights.{name} is missing or of another shape; give the run's own --config")
            parameter.copy_(value)
    tensors = {name: value.to(device) for name, value in tensors.items()}
    ids = facts["prompt_ids"]
    batch = Batch(
        ids, tensors["x0"], [tensors[f"cond.{i:05d}"] for i in range(len(ids))], tensors["advantages"], tensors["t"],
        tensors["noise"], tensors["old_log_prob"], tensors.get("base_velocity"), tensors.get("ema_velocity"),
        {name.removeprefix("stored."): value for name, value in tensors.items() if name.startswith("stored.")},
        shapes=[tuple(shape) for shape in facts["shapes"]] if "shapes" in facts else None,
    )  # fmt: skip
    images = []
    for index, prompt_id in enumerate(ids):
        one = batch.take([index])
        loss, _ = loss_of(family, one, training)
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        norm = torch.stack([g.double().norm() for g in gradients if g is not None]).norm()
        images.append(
            {
                "prompt_id": prompt_id,
                "loss": _number(loss),
                "grad_norm": _number(norm),
                "x0_finite": bool(one.x0.isfinite().all()),
                "cond_finite": bool(one.cond[0].isfinite().all()),
            }
        )
    return {"kind": facts["kind"], "iteration": facts["iteration"], "run": facts["run"], "images": images}


def _number(value: torch.Tensor) -> float | str:
    return float(value) if torch.isfinite(value) else str(float(value))
