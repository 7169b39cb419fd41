"""Z-Image behind the family protocol.

Conventions that the adapter hides: the transformer predicts the negated velocity and takes 1 - t as time; the
pipeline's guidance is pos + s (pos - neg), applied whenever s > 0; the scheduler's shift is static; latents are
normalised with the VAE's scale and shift; the pipeline's encoder overwrites the prompt list that it is given.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from promptecho.errors import DataError, ModelError

MAX_SEQUENCE_LENGTH = 512


class ZImage:
    """Adapter of diffusers' `ZImagePipeline`."""

    name = "zimage"
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3")

    def __init__(self, pipeline) -> None:
        self.pipeline = pipeline
        self.transformer = pipeline.transformer
        self.vae, self.scheduler = pipeline.vae, pipeline.scheduler
        self._negative: torch.Tensor | None = None
        for module in (pipeline.transformer, pipeline.text_encoder, pipeline.vae):
            module.requires_grad_(False).eval()

    @classmethod
    def load(
        cls, path: str, *, revision: str | None = None, dtype: torch.dtype = torch.float32, device="cpu"
    ) -> ZImage:
        """Load a pipeline folder or hub id. The VAE stays in float32, as the paper's authors run it.

        Raises:
            ModelError: the folder is missing or not a Z-Image pipeline.
        """
        from diffusers import ZImagePipeline
        from diffusers.utils import logging as diffusers_logging
        from transformers.utils import logging as transformers_logging

        # Their bars fill logs, and a warning about float32 modules names none; errors still show.
        diffusers_logging.set_verbosity_error()
        diffusers_logging.disable_progress_bar()
        transformers_logging.disable_progress_bar()
        try:
            pipeline = ZImagePipeline.from_pretrained(path, revision=revision, dtype=dtype)
        except Exception as error:  # anything from OSError to SafetensorError; all mean the same here
            reason = " ".join(str(error).split())[:300]
            raise ModelError(f"{path}: cannot load a Z-Image pipeline ({reason}); check models.t2i.path") from error
        pipeline.to(device)
        pipeline.vae.to(torch.float32)
        pipeline.set_progress_bar_config(disable=True)
        return cls(pipeline)

    @property
    def device(self) -> torch.device:
        return self.transformer.device

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        scale = self.pipeline.vae_scale_factor * 2
        if height % scale or width % scale:
            raise ModelError(f"models.t2i: {height} x {width} pixels: both must be multiples of {scale}")
        return (self.transformer.config.in_channels, 2 * (height // scale), 2 * (width // scale))

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> list[torch.Tensor]:
        """Hidden states before the text encoder's last layer, [tokens, dim] per prompt.

        Deviation: the pipeline silently cuts a prompt at 512 tokens, here that is an error, because the reward would
        still score the whole text. Prompts go one at a time and unpadded, so that a prompt's embedding never depends
        on its neighbours.
        """
        embeddings = []
        for prompt in prompts:
            # The pipeline pads to the full length and drops the padding again; one prompt needs none.
            messages = [{"role": "user", "content": prompt}]
            tokenizer = self.pipeline.tokenizer
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=True
            )
            inputs = tokenizer([text], return_tensors="pt").to(self.device)
            if inputs.input_ids.shape[1] > MAX_SEQUENCE_LENGTH:
                raise DataError(
                    f"prompt {prompt[:60]!r}...: {inputs.input_ids.shape[1]} tokens with the chat template, Z-Image "
                    f"takes {MAX_SEQUENCE_LENGTH}; lower captions.max_tokens or shorten the prompt"
                )
            states = self.pipeline.text_encoder(
                input_ids=inputs.input_ids, attention_mask=inputs.attention_mask.bool(), output_hidden_states=True
            ).hidden_states[-2]
            embeddings.append(states[0].clone())
        return embeddings

    def negative(self, n: int) -> list[torch.Tensor]:
        if self._negative is None:
            self._negative = self.encode_prompts([""])[0]
        return [self._negative] * n

    def velocity(self, x_t: torch.Tensor, t: torch.Tensor, cond: Sequence[torch.Tensor]) -> torch.Tensor:
        dtype = self.transformer.dtype
        inputs = list(x_t.to(dtype).unsqueeze(2).unbind(0))
        output = self.transformer(inputs, 1 - t, list(cond), return_dict=False)[0]
        return -torch.stack([item.float() for item in output]).squeeze(2)

    def guided_velocity(
        self, x_t: torch.Tensor, t: torch.Tensor, cond: Sequence[torch.Tensor], guidance_scale: float
    ) -> torch.Tensor:
        if guidance_scale <= 0:
            return self.velocity(x_t, t, cond)
        both = self.velocity(torch.cat([x_t, x_t]), torch.cat([t, t]), [*cond, *self.negative(len(cond))])
        positive, negative = both.chunk(2)
        return positive + guidance_scale * (positive - negative)

    def timesteps(self, num_inference_steps: int, height: int, width: int) -> torch.Tensor:
        from diffusers.pipelines.z_image.pipeline_z_image import calculate_shift, get_default_z_image_sigmas

        _, h, w = self.latent_shape(height, width)
        config = self.scheduler.config
        mu = calculate_shift(
            (h // 2) * (w // 2),
            config.get("base_image_seq_len", 256),
            config.get("max_image_seq_len", 4096),
            config.get("base_shift", 0.5),
            config.get("max_shift", 1.15),
        )
        scheduler = type(self.scheduler).from_config(config)
        scheduler.set_timesteps(sigmas=get_default_z_image_sigmas(num_inference_steps), mu=mu, device=self.device)
        return scheduler.sigmas.float()

    @torch.no_grad()
    def sample(
        self, noise: torch.Tensor, cond: Sequence[torch.Tensor], *, num_inference_steps: int, guidance_scale: float
    ) -> torch.Tensor:
        scale = self.pipeline.vae_scale_factor
        height, width = noise.shape[-2] * scale, noise.shape[-1] * scale
        sigmas = self.timesteps(num_inference_steps, height, width)
        x = noise
        for t, t_next in zip(sigmas[:-1], sigmas[1:], strict=True):
            # The pipeline hands on 1000 sigma in float32; dividing again keeps the very same rounding.
            time = 1 - (1000 - (t * 1000).expand(len(x))) / 1000
            x = x + (t_next - t) * self.guided_velocity(x, time, cond, guidance_scale)
        return x

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> list[Image.Image]:
        config = self.vae.config
        latents = latents.to(self.vae.dtype) / config.scaling_factor + config.shift_factor
        pixels = self.vae.decode(latents, return_dict=False)[0]
        return self.pipeline.image_processor.postprocess(pixels, output_type="pil")
