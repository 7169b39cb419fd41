"""Stable Diffusion 3.5 (and 3) behind the protocol of base.py.

Conventions that are hidden here: the transformer predicts noise - x0 and takes 1000 t as time; guidance is
neg + s (pos - neg), applied above s = 1 only; the sampler's times are the scheduler's own, with a static shift; two
CLIPs and T5 read the prompt, of which T5 alone may see the whole; the CLIPs also give one vector for all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import pad

from promptecho.config.families import Family
from promptecho.errors import DataError, ModelError
from promptecho.t2i.diffusers_model import DiffusersModel

MAX_TOKENS = 256  # to which the pipeline pads and cuts T5's tokens where its `max_sequence_length` is not given


class StableDiffusion3(DiffusersModel):
    """diffusers' `StableDiffusion3Pipeline`, with T5 and without image prompts or skipped layers."""

    def __init__(self, descriptor: Family, pipeline: Any, *, negative_prompt: str = "") -> None:
        if pipeline.text_encoder_3 is None:
            raise ModelError("models.t2i.path: a pipeline without T5 (text_encoder_3), which alone sees whole prompts")
        super().__init__(descriptor, pipeline, negative_prompt=negative_prompt)

    @classmethod
    def prompt_limit(cls, configs: dict[str, dict[str, Any]]) -> int:
        return MAX_TOKENS

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        shape, config = super().latent_shape(height, width), self.transformer.config
        if max(shape[1:]) > config.pos_embed_max_size * config.patch_size:
            most = config.pos_embed_max_size * config.patch_size * self.pipeline.vae_scale_factor
            raise ModelError(f"{height} x {width} pixels: the model has positions for {most} x {most}")
        return shape

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> list[torch.Tensor]:
        """[77 + 256 + 1, width] per prompt: the CLIPs' states side by side, T5's, and in the last row the CLIPs' pooled
        vectors; all filled up with zeros to T5's width.

        Deviation: the pipeline silently cuts what is longer than 256 tokens of T5, here that is an error, because the
        reward would still score the whole text. The CLIPs get the start of long prompts, as in the pipeline.
        """
        found = []
        for prompt in prompts:
            tokens = self.pipeline.tokenizer_3(prompt, return_tensors="pt").input_ids.shape[1]
            if tokens > MAX_TOKENS:
                raise DataError(
                    f"prompt {prompt[:60]!r}...: {tokens} tokens, Stable Diffusion 3.5 takes {MAX_TOKENS}; lower "
                    "captions.max_tokens or shorten the prompt"
                )
            states, _, pooled, _ = self.pipeline.encode_prompt(
                prompt, None, None, device=self.text_encoders[0].device, do_classifier_free_guidance=False,
                max_sequence_length=MAX_TOKENS,
            )  # fmt: skip
            last = pad(pooled, (0, states.shape[-1] - pooled.shape[-1]))
            found.append(torch.cat([states[0], last]).to(self.device))
        return found

    def velocity(self, x_t: torch.Tensor, t: torch.Tensor, cond: Sequence[torch.Tensor]) -> torch.Tensor:
        dtype, config = self.transformer.dtype, self.transformer.config
        states = torch.stack(list(cond)).to(dtype)
        output = self.transformer(
            hidden_states=x_t.to(dtype),
            timestep=1000 * t,
            encoder_hidden_states=states[:, :-1],
            pooled_projections=states[:, -1, : config.pooled_projection_dim],
            return_dict=False,
        )
        return output[0].float()

    def guided_velocity(
        self, x_t: torch.Tensor, t: torch.Tensor, cond: Sequence[torch.Tensor], guidance_scale: float
    ) -> torch.Tensor:
        if guidance_scale <= 1:
            return self.velocity(x_t, t, cond)
        both = self.velocity(torch.cat([x_t, x_t]), torch.cat([t, t]), [*self.negative(len(cond)), *cond])
        negative, positive = both.chunk(2)
        return negative + guidance_scale * (positive - negative)

    def share_inputs(self) -> None:
        from promptecho.t2i.sd3.shared_input import share_inputs

        share_inputs(self.pipeline.transformer)

    def normalised(self, latents: torch.Tensor) -> torch.Tensor:
        config = self.vae.config
        return latents.to(self.vae.dtype) / config.scaling_factor + config.shift_factor
