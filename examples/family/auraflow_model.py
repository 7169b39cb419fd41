"""AuraFlow: how it encodes prompts, predicts velocities and decodes. All else is `DiffusersModel`'s.

Its transformer predicts noise - x0 and takes t as time; guidance is neg + s (pos - neg), applied above s = 1; the
sampler's times are the scheduler's own.
"""

import torch

from promptecho.errors import DataError
from promptecho.t2i.diffusers_model import DiffusersModel

MAX_TOKENS = 256  # to which the pipeline pads and cuts


class AuraFlow(DiffusersModel):
    @classmethod
    def prompt_limit(cls, configs):
        return MAX_TOKENS

    @torch.no_grad()
    def encode_prompts(self, prompts):
        """[256, width] per prompt; zeros where there is no token.

        The pipeline cuts what is longer. Here that is an error, as the reward would still score the whole text.
        """
        found = []
        for prompt in prompts:
            tokens = self.pipeline.tokenizer(prompt, return_tensors="pt").input_ids.shape[1]
            if tokens > MAX_TOKENS:
                raise DataError(
                    f"prompt {prompt[:60]!r}...: {tokens} tokens, AuraFlow takes {MAX_TOKENS}; lower "
                    "captions.max_tokens or shorten the prompt"
                )
            states = self.pipeline.encode_prompt(
                prompt, device=self.text_encoders[0].device, do_classifier_free_guidance=False,
                max_sequence_length=MAX_TOKENS,
            )[0]  # fmt: skip
            found.append(states[0].to(self.device))
        return found

    def velocity(self, x_t, t, cond):
        dtype = self.transformer.dtype
        states = torch.stack(list(cond)).to(dtype)
        output = self.transformer(x_t.to(dtype), encoder_hidden_states=states, timestep=t.to(dtype), return_dict=False)
        return output[0].float()

    def guided_velocity(self, x_t, t, cond, guidance_scale):
        if guidance_scale <= 1:
            return self.velocity(x_t, t, cond)
        both = self.velocity(torch.cat([x_t, x_t]), torch.cat([t, t]), [*self.negative(len(cond)), *cond])
        negative, positive = both.chunk(2)
        return negative + guidance_scale * (positive - negative)

    def step_time(self, t):
        return t * 1000 / 1000  # the pipeline's own way, with its rounding

    def normalised(self, latents):
        return latents.to(self.vae.dtype) / self.vae.config.scaling_factor
