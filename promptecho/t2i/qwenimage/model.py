"""Qwen-Image (and Qwen-Image-2512) behind the protocol of base.py.

Conventions that are hidden here: latents are packed into 2 x 2 patches, a row each; the transformer predicts
noise - x0 and takes t as time; guidance is neg + s (pos - neg), scaled back patch by patch to the norm of pos, and
applied above s = 1 only; the scheduler's shift grows with the image; the VAE is one for video, with a mean and a
standard deviation per channel; the text encoder sees a fixed instruction, whose tokens are cut off again.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from promptecho.errors import DataError
from promptecho.t2i.diffusers_model import DiffusersModel
from promptecho.t2i.patches import pack, unpack

PADDED_LENGTH = 512  # tokens


class QwenImage(DiffusersModel):
    """diffusers' `QwenImagePipeline`. Its `true_cfg_scale` is our `guidance_scale`."""

    @property
    def latent_channels(self) -> int:
        return self.transformer.config.in_channels // 4

    @staticmethod
    def templated(tokenizer: Any, prompt: str) -> str:
        return _without_models().prompt_template_encode.format(prompt)

    @classmethod
    def prompt_limit(cls, configs: dict[str, dict[str, Any]]) -> int:
        """1,024 behind the instruction, or what the text encoder's position table holds."""
        pipeline = _without_models()
        limits = (
            pipeline.tokenizer_max_length + pipeline.prompt_template_encode_start_idx,
            configs.get("text_encoder", {}).get("max_position_embeddings"),
        )
        return min(limit for limit in limits if limit)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> list[torch.Tensor]:
        """Last hidden states of the text encoder behind the instruction, [tokens, dim] per prompt.

        Deviation: the pipeline silently cuts prompts that are too long, here that is an error, because the reward
        would still score the whole text. Prompts go one at a time and unpadded, so that a prompt's embedding never
        depends on its neighbours.
        """
        pipeline, embeddings = self.pipeline, []
        limit, drop = pipeline.tokenizer_max_length, pipeline.prompt_template_encode_start_idx
        for prompt in prompts:
            text = pipeline.prompt_template_encode.format(prompt)
            inputs = pipeline.tokenizer([text], return_tensors="pt").to(pipeline.text_encoder.device)
            if inputs.input_ids.shape[1] > limit + drop:
                raise DataError(
                    f"prompt {prompt[:60]!r}...: {inputs.input_ids.shape[1] - drop} tokens, Qwen-Image takes {limit}; "
                    "lower captions.max_tokens or shorten the prompt"
                )
            states = pipeline.text_encoder(
                input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, output_hidden_states=True
            ).hidden_states[-1]
            embeddings.append(states[0, drop:].clone().to(self.device))
        return embeddings

    def padded_length(self, tokens: int) -> int:
        """Its own, or what `models.t2i.pad_prompts` says."""
        return tokens if self.pad_prompts == "none" else max(tokens, PADDED_LENGTH)

    def velocity(self, x_t: torch.Tensor, t: torch.Tensor, cond: Sequence[torch.Tensor]) -> torch.Tensor:
        return unpack(self.without_masks(self._packed_velocity, x_t, t, cond), *x_t.shape[-2:])

    def guided_velocity(
        self, x_t: torch.Tensor, t: torch.Tensor, cond: Sequence[torch.Tensor], guidance_scale: float
    ) -> torch.Tensor:
        if guidance_scale <= 1:
            return self.velocity(x_t, t, cond)
        halves = torch.cat([x_t, x_t]), torch.cat([t, t]), [*cond, *self.negative(len(cond))]
        both = self.without_masks(self._packed_velocity, *halves)
        positive, negative = both.chunk(2)
        combined = negative + guidance_scale * (positive - negative)
        norm = positive.norm(dim=-1, keepdim=True) / combined.norm(dim=-1, keepdim=True)
        return unpack(combined * norm, *x_t.shape[-2:])

    def _packed_velocity(self, x_t: torch.Tensor, t: torch.Tensor, cond: Sequence[torch.Tensor]) -> torch.Tensor:
        """[N, patches, 4 C] in float32. Shorter conditionings are padded and masked, see `models.t2i.pad_prompts`."""
        dtype = self.transformer.dtype
        lengths = [len(one) for one in cond]
        states = torch.nn.utils.rnn.pad_sequence(list(cond), batch_first=True).to(dtype)
        if self.pad_prompts != "none" and (missing := PADDED_LENGTH - states.shape[1]) > 0:
            states = torch.nn.functional.pad(states, (0, 0, 0, missing))
        mask = None
        if self.pad_prompts != "unmasked" and set(lengths) != {states.shape[1]}:
            positions = torch.arange(states.shape[1], device=states.device)
            mask = positions < torch.tensor(lengths, device=states.device).unsqueeze(1)
        height, width = x_t.shape[-2:]
        return self.transformer(
            hidden_states=pack(x_t).to(dtype),
            timestep=t.to(dtype),
            encoder_hidden_states=states,
            encoder_hidden_states_mask=mask,
            img_shapes=[[(1, height // 2, width // 2)]] * len(x_t),
            return_dict=False,
        )[0].float()

    def share_inputs(self) -> None:
        from promptecho.t2i.qwenimage.shared_input import share_inputs

        share_inputs(self.pipeline.transformer)

    def use_real_rope(self) -> None:
        from promptecho.t2i.qwenimage.rotary import use_real_rope

        use_real_rope(self.pipeline.transformer)

    def default_sigmas(self, num_inference_steps: int):
        return np.linspace(1.0, 1 / num_inference_steps, num_inference_steps)

    def step_time(self, t: torch.Tensor) -> torch.Tensor:
        return t * 1000 / 1000  # the pipeline's own way, with its rounding

    def normalised(self, latents: torch.Tensor) -> torch.Tensor:
        latents = latents.to(self.vae.dtype).unsqueeze(2)

        def per_channel(values: list[float]) -> torch.Tensor:
            return torch.tensor(values).view(1, -1, 1, 1, 1).to(latents.device, latents.dtype)

        config = self.vae.config
        # Divided by 1 / std as in the pipeline: the same rounding.
        return latents / (1.0 / per_channel(config.latents_std)) + per_channel(config.latents_mean)


@functools.cache
def _without_models() -> Any:
    """The pipeline without its parts: it brings the instruction and the lengths."""
    import diffusers

    none: Any = None
    return diffusers.QwenImagePipeline(none, none, none, none, none)
