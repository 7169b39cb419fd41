"""FLUX.2 klein behind the protocol of base.py.

Conventions that are hidden here: latents are packed into 2 x 2 patches, a row each, and what the VAE takes has a mean
and a variance per channel of a patch; the transformer predicts noise - x0 and takes t as time; guidance is
neg + s (pos - neg), applied above s = 1 only, and never by a model that is distilled; the shift of the sampler's times
depends on the image and on the number of steps; prompts are padded to 512 tokens, all of which take part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from promptecho.errors import DataError
from promptecho.t2i.diffusers_model import DiffusersModel
from promptecho.t2i.patches import pack, unpack

MAX_TOKENS = 512


class Flux2Klein(DiffusersModel):
    """diffusers' `Flux2KleinPipeline` without images as input: klein base, which is guided, and klein, which is not."""

    @property
    def latent_channels(self) -> int:
        return self.transformer.config.in_channels // 4

    @staticmethod
    def templated(tokenizer: Any, prompt: str) -> str:
        return tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )

    @classmethod
    def prompt_limit(cls, configs: dict[str, dict[str, Any]]) -> int:
        """512, or what the text encoder's position table holds."""
        return min(MAX_TOKENS, configs.get("text_encoder", {}).get("max_position_embeddings") or MAX_TOKENS)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> list[torch.Tensor]:
        """[512, 3 widths] per prompt: the text encoder's states behind its layers 9, 18 and 27, side by side.

        Deviation: the pipeline silently cuts what is longer than 512 tokens, here that is an error, because the reward
        would still score the whole text.
        """
        pipeline, found = self.pipeline, []
        for prompt in prompts:
            text = self.templated(pipeline.tokenizer, prompt)
            tokens = pipeline.tokenizer(text, return_tensors="pt").input_ids.shape[1]
            if tokens > MAX_TOKENS:
                raise DataError(
                    f"prompt {prompt[:60]!r}...: {tokens} tokens with the chat template, FLUX.2 klein takes "
                    f"{MAX_TOKENS}; lower captions.max_tokens or shorten the prompt"
                )
            states, _ = pipeline.encode_prompt(prompt, device=pipeline.text_encoder.device)
            found.append(states[0].to(self.device))
        return found

    def velocity(self, x_t: torch.Tensor, t: torch.Tensor, cond: Sequence[torch.Tensor]) -> torch.Tensor:
        dtype = self.transformer.dtype
        states = torch.stack(list(cond)).to(dtype)
        height, width = x_t.shape[-2:]
        output = self.transformer(
            hidden_states=pack(x_t).to(dtype),
            timestep=t.to(dtype),
            encoder_hidden_states=states,
            txt_ids=positions(1, 1, states.shape[1]).to(states.device),
            img_ids=positions(height // 2, width // 2, 1).to(states.device),
            return_dict=False,
        )[0]
        return unpack(output.float(), height, width)

    def guided_velocity(
        self, x_t: torch.Tensor, t: torch.Tensor, cond: Sequence[torch.Tensor], guidance_scale: float
    ) -> torch.Tensor:
        if guidance_scale <= 1 or self.pipeline.config.is_distilled:
            return self.velocity(x_t, t, cond)
        both = self.velocity(torch.cat([x_t, x_t]), torch.cat([t, t]), [*cond, *self.negative(len(cond))])
        positive, negative = both.chunk(2)
        return negative + guidance_scale * (positive - negative)

    def default_sigmas(self, num_inference_steps: int):
        return np.linspace(1.0, 1 / num_inference_steps, num_inference_steps)

    def step_time(self, t: torch.Tensor) -> torch.Tensor:
        return t * 1000 / 1000  # the pipeline's own way, with its rounding

    def shift(self, image_seq_len: int, num_inference_steps: int) -> float:
        from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

        return compute_empirical_mu(image_seq_len, num_inference_steps)

    def normalised(self, latents: torch.Tensor) -> torch.Tensor:
        vae = self.vae
        deviation = torch.sqrt(vae.bn.running_var + vae.config.batch_norm_eps)
        return unpack(pack(latents.to(vae.dtype)) * deviation + vae.bn.running_mean, *latents.shape[-2:])


def positions(rows: int, columns: int, tokens: int) -> torch.Tensor:
    """Where each token lies, [rows * columns * tokens, 4]: 0, its row, its column, and its place in the text."""
    return torch.cartesian_prod(torch.arange(1), torch.arange(rows), torch.arange(columns), torch.arange(tokens))
