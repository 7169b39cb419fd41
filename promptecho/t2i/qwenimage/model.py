"""Qwen-Image (and Qwen-Image-2512) behind the protocol of base.py.

Conventions that are hidden here: latents are packed into 2 x 2 patches, a row each; the transformer predicts
noise - x0 and takes t as time; guidance is neg + s (pos - neg), scaled back patch by patch to the norm of pos, and
applied above s = 1 only; the scheduler's shift grows with the image; the VAE is one for video, with a mean and a
standard deviation per channel; the text encoder sees a fixed instruction, whose tokens are cut off again.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from promptecho.errors import DataError
from promptecho.t2i.diffusers_model import DiffusersModel
from promptecho.t2i.patches import pack, unpack
from promptecho.t2i.video_vae import channel_statistics, denormalised

PADDED_LENGTH = 512  # tokens


class QwenImage(DiffusersModel):
    """diffusers' `QwenImagePipeline`. Its `true_cfg_scale` is our `guidance_scale`."""

    pipeline_name: ClassVar[str] = "QwenImagePipeline"  # brings the instruction and the lengths

    @property
    def latent_channels(self) -> int:
        return self.transformer.config.in_channels // 4

    @staticmethod
    def templated(tokenizer: Any, prompt: str) -> str:
        return without_parts(QwenImage.pipeline_name).prompt_template_encode.format(prompt)

    @classmethod
    def prompt_limit(cls, configs: dict[str, dict[str, Any]]) -> int:
        """1,024 behind the instruction, or what the text encoder's position table holds."""
        pipeline = without_parts(cls.pipeline_name)
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
            check_length(prompt, inputs.input_ids.shape[1] - drop, limit, self.descriptor.title)
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
        return unpack(guided(positive, negative, guidance_scale), *x_t.shape[-2:])

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
        return denormalised(self.vae, latents.unsqueeze(2))

    def channel_statistics(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of each channel of the VAE's latents [N, C, frames, h, w]."""
        return channel_statistics(self.vae, like)


def guided(positive: torch.Tensor, negative: torch.Tensor, guidance_scale: float) -> torch.Tensor:
    """Classifier-free guidance of velocities in patches [N, patches, D], each scaled back to the norm of `positive`."""
    combined = negative + guidance_scale * (positive - negative)
    return combined * (positive.norm(dim=-1, keepdim=True) / combined.norm(dim=-1, keepdim=True))


def check_length(prompt: str, tokens: int, limit: int, title: str) -> None:
    """Nothing, unless a prompt has more tokens than the pipeline takes.

    Raises:
        DataError: it has.
    """
    if tokens > limit:
        raise DataError(
            f"prompt {prompt[:60]!r}...: {tokens} tokens, {title} takes {limit}; lower captions.max_tokens or shorten "
            "the prompt"
        )


@functools.cache
def without_parts(pipeline_name: str) -> Any:
    """A pipeline of diffusers without its parts."""
    import diffusers

    pipeline_class = getattr(diffusers, pipeline_name)
    return pipeline_class(**dict.fromkeys(inspect.signature(pipeline_class).parameters))
