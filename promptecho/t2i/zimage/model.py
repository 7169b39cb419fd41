"""Z-Image behind the protocol of base.py.

Conventions that are hidden here: the transformer predicts the negated velocity and takes 1 - t as time; the
pipeline's guidance is pos + s (pos - neg), applied whenever s > 0; the scheduler's shift is static; latents are
normalised with the VAE's scale and shift; the pipeline's encoder overwrites the prompt list that it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from promptecho.errors import DataError
from promptecho.t2i.diffusers_model import DiffusersModel

MAX_SEQUENCE_LENGTH = 512
BLOCK = 32  # tokens to whose multiples the transformer pads; diffusers' SEQ_MULTI_OF, not imported to stay light


class ZImage(DiffusersModel):
    """diffusers' `ZImagePipeline`."""

    @property
    def latent_channels(self) -> int:
        return self.transformer.config.in_channels

    @staticmethod
    def templated(tokenizer: Any, prompt: str) -> str:
        return tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=True
        )

    @classmethod
    def prompt_limit(cls, configs: dict[str, dict[str, Any]]) -> int:
        """512, or what the text encoder's or the transformer's position table holds. In the transformer a prompt is
        padded to whole blocks, counts from 1, and the image has the position behind it."""
        limits = [MAX_SEQUENCE_LENGTH, configs.get("text_encoder", {}).get("max_position_embeddings")]
        if lengths := configs.get("transformer", {}).get("axes_lens"):
            limits.append((lengths[0] - 2) // BLOCK * BLOCK)
        return min(limit for limit in limits if limit)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> list[torch.Tensor]:
        """Hidden states before the text encoder's last layer, [tokens, dim] per prompt.

        Deviation: the pipeline silently cuts a prompt at 512 tokens, here that is an error, because the reward would
        still score the whole text. Prompts go one at a time and unpadded, so that a prompt's embedding never depends
        on its neighbours.
        """
        encoder, transformer = self.pipeline.text_encoder.config, self.transformer.config
        limit = self.prompt_limit({"text_encoder": encoder.to_dict(), "transformer": dict(transformer)})
        embeddings = []
        for prompt in prompts:
            # The pipeline pads to the full length and drops the padding again; one prompt needs none.
            tokenizer = self.pipeline.tokenizer
            inputs = tokenizer([self.templated(tokenizer, prompt)], return_tensors="pt")
            inputs = inputs.to(self.pipeline.text_encoder.device)
            if inputs.input_ids.shape[1] > limit:
                raise DataError(
                    f"prompt {prompt[:60]!r}...: {inputs.input_ids.shape[1]} tokens with the chat template, Z-Image "
                    f"takes {limit}; lower captions.max_tokens or shorten the prompt"
                )
            states = self.pipeline.text_encoder(
                input_ids=inputs.input_ids, attention_mask=inputs.attention_mask.bool(), output_hidden_states=True
            ).hidden_states[-2]
            embeddings.append(states[0].clone().to(self.device))
        return embeddings

    def padded_length(self, tokens: int) -> int:
        """The transformer pads to whole blocks, of which it takes all tokens for prompt."""
        return -(-tokens // BLOCK) * BLOCK

    def velocity(self, x_t: torch.Tensor, t: torch.Tensor, cond: Sequence[torch.Tensor]) -> torch.Tensor:
        return self.without_masks(self._velocity, x_t, t, cond)

    def _velocity(self, x_t: torch.Tensor, t: torch.Tensor, cond: Sequence[torch.Tensor]) -> torch.Tensor:
        inputs = list(x_t.to(self.transformer.dtype).unsqueeze(2).unbind(0))
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

    def share_inputs(self) -> None:
        from promptecho.t2i.zimage.shared_input import share_inputs

        share_inputs(self.pipeline.transformer)

    def use_real_rope(self) -> None:
        from promptecho.t2i.zimage.rotary import use_real_rope

        use_real_rope(self.pipeline.transformer)

    def default_sigmas(self, num_inference_steps: int):
        from diffusers.pipelines.z_image.pipeline_z_image import get_default_z_image_sigmas

        return get_default_z_image_sigmas(num_inference_steps)

    def step_time(self, t: torch.Tensor) -> torch.Tensor:
        # The pipeline passes on 1000 sigma in float32; dividing again keeps the very same rounding.
        return 1 - (1000 - t * 1000) / 1000

    def normalised(self, latents: torch.Tensor) -> torch.Tensor:
        config = self.vae.config
        return latents.to(self.vae.dtype) / config.scaling_factor + config.shift_factor
