"""One protocol for the models of all text-to-image families; what a family does differently stays behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from PIL import Image

from promptecho.config.families import Family
from promptecho.config.fields import Schedule
from promptecho.source_images import Prompt


class T2iModel(Protocol):
    """A flow-matching text-to-image model: x_t = (1 - t) x0 + t noise, velocity = noise - x0, t in (0, 1].

    `transformer` is the module that gets the LoRA adapter; everything else is frozen.
    """

    descriptor: Family  # what is said of its family
    negative_prompt: str
    lora_targets: Mapping[str, tuple[str, ...]]  # layers that get an adapter, for each value of training.lora.layers
    transformer: torch.nn.Module
    pipeline: Any
    device: torch.device  # where latents and conditionings are
    one_pass: bool  # a call of `velocity` may not be cut into a pass for each length of prompts (t2i/lengths.py)

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Shape of one sample's latents: [C, h, w] of an image, [C, T, h, w] of a video."""
        ...

    def encode_prompts(self, prompts: Sequence[Prompt]) -> list[torch.Tensor]:
        """One conditioning tensor [tokens, dim] per prompt: texts, or where `descriptor.source_image` says so prompts
        with their source images."""
        ...

    def negative(self, n: int) -> list[torch.Tensor]:
        """The negative prompt's conditioning, `n` times."""
        ...

    def velocity(self, x_t: torch.Tensor, t: torch.Tensor, cond: Sequence[torch.Tensor]) -> torch.Tensor:
        """Velocity [N, ...] at latents x_t [N, ...] and times t [N], without guidance; differentiable."""
        ...

    def guided_velocity(
        self, x_t: torch.Tensor, t: torch.Tensor, cond: Sequence[torch.Tensor], guidance_scale: float
    ) -> torch.Tensor:
        """Velocity with classifier-free guidance, `guidance_scale` being what the diffusers pipeline takes."""
        ...

    def timesteps(
        self, num_inference_steps: int, height: int, width: int, schedule: Schedule = "pipeline"
    ) -> torch.Tensor:
        """The sampler's times, from 1 downwards, [num_inference_steps + 1], the last one being 0."""
        ...

    def sample(
        self, noise: torch.Tensor, cond: Sequence[torch.Tensor], *, num_inference_steps: int, guidance_scale: float,
        schedule: Schedule = "pipeline",
    ) -> torch.Tensor:  # fmt: skip
        """Latents x0 [N, ...] from noise [N, ...] by the plain ODE."""
        ...

    def decode(self, latents: torch.Tensor) -> list[Image.Image]:
        """Latents to images, or to a `Video` each (promptecho/video.py) where a sample has several frames."""
        ...

    def enable_activation_checkpointing(self, mode: str = "full") -> None:
        """Compute activations again in the backward pass instead of keeping them: all ("full"), or all but what takes
        most work ("selective"). A family may have the first alone, and then take no mode."""
        ...

    def move_text_encoder(self, device: torch.device | str) -> None:
        """Bring the text encoders to a device, or take them off the GPU with "cpu"."""
        ...

    @property
    def text_identity(self) -> str:
        """What decides a prompt's embedding besides the prompt, as a digest."""
        ...

    def set_negative(self, embedding: torch.Tensor) -> None:
        """Take the negative prompt's conditioning from elsewhere (a cache)."""
        ...
