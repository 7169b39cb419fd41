"""Stable Diffusion 3: how it encodes prompts, predicts velocities and decodes. All else is `DiffusersModel`'s.

Its transformer predicts noise - x0 and takes 1000 t as time; guidance is neg + s (pos - neg), applied above s = 1; the
sampler's times are the scheduler's own.
"""

import torch
from torch.nn.functional import pad

from promptecho.errors import DataError, ModelError
from promptecho.t2i.diffusers_model import DiffusersModel

MAX_TOKENS = 256  # to which the pipeline pads and cuts T5's tokens


class StableDiffusion3(DiffusersModel):
    def __init__(self, descriptor, pipeline, *, negative_prompt=""):
        if pipeline.text_encoder_3 is None:
            raise ModelError("models.t2i.path: a pipeline without T5, which alone would see whole prompts")
        super().__init__(descriptor, pipeline, negative_prompt=negative_prompt)

    @classmethod
    def prompt_limit(cls, configs):
        return MAX_TOKENS

    @torch.no_grad()
    def encode_prompts(self, prompts):
        """[77 + 256 + 1, width] per prompt; the last row holds the pooled vector, filled up with zeros.

        The pipeline cuts what is longer than 256 tokens of T5. Here that is an error, as the reward would still score
        the whole text.
        """
        found = []
        for prompt in prompts:
            tokens = self.pipeline.tokenizer_3(prompt, return_tensors="pt").input_ids.shape[1]
            if tokens > MAX_TOKENS:
                raise DataError(
                    f"prompt {prompt[:60]!r}...: {tokens} tokens, Stable Diffusion 3 takes {MAX_TOKENS}; lower "
                    "captions.max_tokens or shorten the prompt"
                )
            states, _, pooled, _ = self.pipeline.encode_prompt(
                prompt, None, None, device=self.text_encoders[0].device, do_classifier_free_guidance=False,
                max_sequence_length=MAX_TOKENS,
            )  # fmt: skip
            last = pad(pooled, (0, states.shape[-1] - pooled.shape[-1]))
            found.append(torch.cat([states[0], last]).to(self.device))
        return found

    def velocity(self, x_t, t, cond):
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

    def guided_velocity(self, x_t, t, cond, guidance_scale):
        if guidance_scale <= 1:
            return self.velocity(x_t, t, cond)
        both = self.velocity(torch.cat([x_t, x_t]), torch.cat([t, t]), [*self.negative(len(cond)), *cond])
        negative, positive = both.chunk(2)
        return negative + guidance_scale * (positive - negative)

    def normalised(self, latents):
        config = self.vae.config
        return latents.to(self.vae.dtype) / config.scaling_factor + config.shift_factor
