"""Wan 2.1 and 2.2 behind the protocol of base.py: text to video.

Conventions that are hidden here: latents [N, C, T, h, w] have a dimension for time, in which the VAE makes one latent
frame of the first frame and one of every four that follow; the transformer predicts noise - x0 and takes 1000 t as
time; prompts are padded with zeros to 512 rows, all of which take part; the negative prompt always guides, for
guidance above 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from promptecho.config.families import Family
from promptecho.decoded import decoded_images
from promptecho.errors import DataError, ModelError
from promptecho.t2i.diffusers_model import DiffusersModel
from promptecho.t2i.video_vae import denormalised
from promptecho.video import Video

MAX_TOKENS = 512


class Wan(DiffusersModel):
    """diffusers' `WanPipeline` with one transformer: Wan2.1-T2V, and Wan2.2-TI2V-5B without an image.

    Deviation: the models come with the scheduler UniPC, a multistep solver; here they are sampled as all families are,
    by the plain ODE at the times of `FlowMatchEulerDiscreteScheduler` with UniPC's `flow_shift`.

    Raises:
        ModelError: the pipeline has a second transformer for low noise, as Wan2.2-T2V-A14B has.
    """

    def __init__(self, descriptor: Family, pipeline: Any, *, negative_prompt: str = "") -> None:
        if getattr(pipeline, "transformer_2", None) is not None:
            raise ModelError(
                f"{pipeline.config.get('_name_or_path') or 'the pipeline'}: has a second transformer, for low noise "
                "(Wan2.2-T2V-A14B); only models with one can be trained: take Wan2.1-T2V or Wan2.2-TI2V-5B"
            )
        super().__init__(descriptor, pipeline, negative_prompt=negative_prompt)
        self.scheduler = flow_scheduler(self.scheduler)

    @classmethod
    def prompt_limit(cls, configs: dict[str, dict[str, Any]]) -> int:
        return MAX_TOKENS

    @staticmethod
    def templated(tokenizer: Any, prompt: str) -> str:
        """As the pipeline cleans it: HTML's entities resolved, white space in one piece."""
        from diffusers.pipelines.wan.pipeline_wan import prompt_clean

        return prompt_clean(prompt)

    @property
    def padded_to(self) -> int:
        """Rows of a prompt's embedding as the transformer gets it: 512, or fewer where the tokenizer says so."""
        return min(MAX_TOKENS, self.pipeline.tokenizer.model_max_length)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> list[torch.Tensor]:
        """UMT5's last hidden states, [tokens, dim] per prompt.

        Deviation: the pipeline silently cuts what is longer, here that is an error, because the reward would still
        score the whole text. Prompts go one at a time and unpadded.
        """
        pipeline, found = self.pipeline, []
        for prompt in prompts:
            ids = pipeline.tokenizer(self.templated(pipeline.tokenizer, prompt), return_tensors="pt").input_ids
            if ids.shape[1] > self.padded_to:
                raise DataError(
                    f"prompt {prompt[:60]!r}...: {ids.shape[1]} tokens, the model takes {self.padded_to}; lower "
                    "captions.max_tokens or shorten the prompt"
                )
            states = pipeline.text_encoder(ids.to(pipeline.text_encoder.device)).last_hidden_state
            found.append(states[0].to(self.device))
        return found

    def velocity(self, x_t: torch.Tensor, t: torch.Tensor, cond: Sequence[torch.Tensor]) -> torch.Tensor:
        dtype, rows = self.transformer.dtype, self.padded_to
        states = torch.stack([torch.nn.functional.pad(one, (0, 0, 0, rows - len(one))) for one in cond])
        times = t * self.scheduler.config.num_train_timesteps
        if self.pipeline.config.expand_timesteps:  # Wan2.2-TI2V-5B: a time for each token, all alike without an image
            _, rows_of, columns_of = self.transformer.config.patch_size
            tokens = x_t.shape[2] * (x_t.shape[3] // rows_of) * (x_t.shape[4] // columns_of)
            times = times[:, None].expand(-1, tokens)
        return self.transformer(
            hidden_states=x_t.to(dtype), timestep=times, encoder_hidden_states=states.to(dtype), return_dict=False
        )[0].float()

    def guided_velocity(
        self, x_t: torch.Tensor, t: torch.Tensor, cond: Sequence[torch.Tensor], guidance_scale: float
    ) -> torch.Tensor:
        if guidance_scale <= 1:
            return self.velocity(x_t, t, cond)
        both = self.velocity(torch.cat([x_t, x_t]), torch.cat([t, t]), [*cond, *self.negative(len(cond))])
        positive, negative = both.chunk(2)
        return negative + guidance_scale * (positive - negative)

    @property
    def pixels_per_latent(self) -> int:
        return self.pipeline.vae_scale_factor_spatial

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        """[channels, latent frames, h, w].

        Raises:
            ModelError: `frames` is no number that the VAE can make.
        """
        step = self.pipeline.vae_scale_factor_temporal
        if (self.frames - 1) % step:
            raise ModelError(
                f"{self.frames} frames: must be one more than a multiple of {step}; correct models.t2i.frames"
            )
        channels, h, w = super().latent_shape(height, width)
        return (channels, (self.frames - 1) // step + 1, h, w)

    def normalised(self, latents: torch.Tensor) -> torch.Tensor:
        return denormalised(self.vae, latents)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> list[Image.Image]:
        """A `Video` for each of the latents [N, C, T, h, w], or an image where `frames` is 1."""
        found = []
        for one in self.vae.decode(self.normalised(latents), return_dict=False)[0]:  # [3, frames, H, W]
            values = self.pipeline.video_processor.postprocess(one.transpose(0, 1), output_type="pt")
            frames = decoded_images(values)
            found.append(Video(frames) if len(frames) > 1 else frames[0])
        return found


def flow_scheduler(scheduler: Any) -> Any:
    """A scheduler of plain steps at the times of one that may be UniPC."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    config = scheduler.config
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler) or "flow_shift" not in config:
        return scheduler
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=config.num_train_timesteps, shift=config.flow_shift)
