"""FLUX.1 behind the protocol of base.py.

Conventions that are hidden here: latents are packed into 2 x 2 patches, a row each; the transformer predicts
noise - x0 and takes t as time; guidance is a number that the distilled model was taught to follow, in one pass, and no
prompt is led away from; prompts are padded to 512 tokens, all of which take part; CLIP gives one vector for the whole
prompt; the scheduler's shift grows with the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad

from promptecho.errors import DataError
from promptecho.t2i.diffusers_model import DiffusersModel
from promptecho.t2i.patches import pack, unpack

MAX_TOKENS = 512
UNGUIDED = 1.0  # what the distilled model takes for "as the data, without guidance"


class Flux(DiffusersModel):
    """diffusers' `FluxPipeline`: FLUX.1 dev, and schnell, which has no guidance. Its `true_cfg_scale` stays 1."""

    @property
    def latent_channels(self) -> int:
        return self.transformer.config.in_channels // 4

    @classmethod
    def prompt_limit(cls, configs: dict[str, dict[str, Any]]) -> int:
        return MAX_TOKENS

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> list[torch.Tensor]:
        """[512 + 1, width] per prompt: T5's states, and in the last row CLIP's pooled vector, filled up with zeros.

        Deviation: the pipeline silently cuts what is longer than 512 tokens of T5, here that is an error, because the
        reward would still score the whole text. CLIP gets the start of long prompts, as in the pipeline.
        """
        pipeline, found = self.pipeline, []
        for prompt in prompts:
            tokens = pipeline.tokenizer_2(prompt, return_tensors="pt").input_ids.shape[1]
            if tokens > MAX_TOKENS:
                raise DataError(
                    f"prompt {prompt[:60]!r}...: {tokens} tokens, FLUX.1 takes {MAX_TOKENS}; lower captions.max_tokens "
                    "or shorten the prompt"
                )
            whole = padded(pipeline.tokenizer_2, prompt, MAX_TOKENS).to(pipeline.text_encoder_2.device)
            states = pipeline.text_encoder_2(whole)[0][0]
            start = padded(pipeline.tokenizer, prompt, pipeline.tokenizer_max_length).to(pipeline.text_encoder.device)
            pooled = pipeline.text_encoder(start).pooler_output[0].to(states)
            found.append(torch.cat([states, pad(pooled, (0, states.shape[-1] - len(pooled)))[None]]).to(self.device))
        return found

    def velocity(self, x_t: torch.Tensor, t: torch.Tensor, cond: Sequence[torch.Tensor]) -> torch.Tensor:
        return self.guided_velocity(x_t, t, cond, UNGUIDED)

    def guided_velocity(
        self, x_t: torch.Tensor, t: torch.Tensor, cond: Sequence[torch.Tensor], guidance_scale: float
    ) -> torch.Tensor:
        dtype, config = self.transformer.dtype, self.transformer.config
        states = torch.stack(list(cond)).to(dtype)
        height, width = x_t.shape[-2:]
        guidance = torch.full([len(x_t)], guidance_scale, device=x_t.device) if config.guidance_embeds else None
        output = self.transformer(
            hidden_states=pack(x_t).to(dtype),
            timestep=t.to(dtype),
            guidance=guidance,
            pooled_projections=states[:, -1, : config.pooled_projection_dim],
            encoder_hidden_states=states[:, :-1],
            txt_ids=states.new_zeros(states.shape[1] - 1, 3),
            img_ids=positions(height // 2, width // 2).to(states),
            return_dict=False,
        )[0]
        return unpack(output.float(), height, width)

    def default_sigmas(self, num_inference_steps: int):
        return np.linspace(1.0, 1 / num_inference_steps, num_inference_steps)

    def step_time(self, t: torch.Tensor) -> torch.Tensor:
        return t * 1000 / 1000  # the pipeline's own way, with its rounding

    def normalised(self, latents: torch.Tensor) -> torch.Tensor:
        config = self.vae.config
        return latents.to(self.vae.dtype) / config.scaling_factor + config.shift_factor


def positions(rows: int, columns: int) -> torch.Tensor:
    """Where each patch lies, [rows * columns, 3]: 0, its row and its column."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], dim=-1).reshape(-1, 3)


def padded(tokenizer: Any, prompt: str, length: int) -> torch.Tensor:
    """The prompt's tokens [1, length], filled up or cut."""
    return tokenizer(prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
