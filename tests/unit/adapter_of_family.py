"""An adapter with random weights on a tiny pipeline: on our model, in a folder, and read back by other tools and us."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file

from promptecho.config.training_parts import LoraSection
from promptecho.t2i.comfyui import COMFYUI_FILE
from promptecho.t2i.external import convert_adapter, load_target
from promptecho.t2i.lora import add_lora, save_adapter, trained_parameters


def put_on(family: Any, adapter: Path) -> set[str]:
    """Give the family's transformer an adapter, which is saved, too. Returns the names of its weights."""
    model = add_lora(family.transformer, LoraSection(rank=4, alpha=8), 1, family.lora_targets)
    parameters = trained_parameters(model)
    generator = torch.Generator().manual_seed(3)
    weights = {name: torch.randn(p.shape, generator=generator) * 0.05 for name, p in parameters.items()}
    save_adapter(model, weights, adapter, family.descriptor)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    family.transformer = model
    return set(parameters)


def assert_others_read(adapter: Path, ours: torch.Tensor, piped: Callable[[], Any], made: Callable[[Any], Any]) -> None:
    """diffusers and PEFT make what we made, which the pipeline without the adapter does not.

    `piped` loads a pipeline, `made` gives the latents that one makes.
    """
    assert (ours - made(piped())).abs().max() > 0.01
    loaded, other = piped(), piped()
    loaded.load_lora_weights(str(adapter), weight_name="pytorch_lora_weights.safetensors")
    other.transformer = PeftModel.from_pretrained(other.transformer, str(adapter))
    for pipeline in (loaded, other):
        torch.testing.assert_close(ours, made(pipeline), rtol=1e-3, atol=1e-4)


def assert_we_read(adapter: Path, family: Any, pipeline: Path, folder: Path) -> None:
    """The file for diffusers and that for ComfyUI are converted to the weights as they were."""
    target, expected = load_target(family.descriptor, str(pipeline)), load_file(adapter / "adapter_model.safetensors")
    assert all(name.startswith("transformer.") for name in load_file(adapter / COMFYUI_FILE))
    for file in ("pytorch_lora_weights.safetensors", COMFYUI_FILE):
        convert_adapter(adapter / file, folder / file, target)
        found = load_file(folder / file / "adapter_model.safetensors")
        assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)
