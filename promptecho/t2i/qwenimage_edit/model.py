"""Qwen-Image-Edit (2509 and 2511) behind the protocol of base.py.

What it shares with Qwen-Image is in qwenimage/model.py. Hidden here: the text encoder sees the source image, at about
384 x 384 pixels, between a fixed instruction and the prompt; the transformer sees its latents, at about 1024 x 1024
pixels and in the image's own shape, as tokens behind those of the image that is made; what guidance leads away from is
the negative prompt for the same image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from PIL import Image

from promptecho.errors import DataError
from promptecho.source_images import Prompt
from promptecho.t2i.lengths import length_by_length
from promptecho.t2i.patches import pack, unpack
from promptecho.t2i.qwenimage.model import QwenImage, check_length, guided, without_parts
from promptecho.vlm.processor import load_part

PICTURE = "Picture 1: <|vision_start|><|image_pad|><|vision_end|>"  # as the pipeline has it
PICTURE_TOKENS = 256  # at most, for a picture of any shape that is taken
BASE, NUMBERS = 128, 8  # two digits each of four counts; any dtype has them exactly


@dataclass(frozen=True)
class Parts:
    """What a prompt's conditioning holds: encoded text [tokens, dim] for the prompt and for the negative prompt, and
    the source image's latents in patches [rows * columns, 4 C]."""

    text: torch.Tensor
    negative: torch.Tensor
    source: torch.Tensor
    rows: int
    columns: int


class QwenImageEdit(QwenImage):
    """diffusers' `QwenImageEditPlusPipeline` with one source image a prompt. Its `true_cfg_scale` is our
    `guidance_scale`."""

    pipeline_name: ClassVar[str] = "QwenImageEditPlusPipeline"

    @classmethod
    def own_parts(cls, path: str, revision: str | None) -> dict[str, Any]:
        """The processor as VLMs have it: pictures become the same values with and without torchvision."""
        from transformers import Qwen2VLProcessor

        return {"processor": load_part(Qwen2VLProcessor, path, "processor", revision=revision)}

    @staticmethod
    def templated(tokenizer: Any, prompt: str) -> str:
        return without_parts(QwenImageEdit.pipeline_name).prompt_template_encode.format(PICTURE + prompt)

    @classmethod
    def prompt_limit(cls, configs: dict[str, dict[str, Any]]) -> int:
        """As Qwen-Image's, less the picture's tokens, of which `templated` has one."""
        return super().prompt_limit(configs) - PICTURE_TOKENS + 1

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[Prompt]) -> list[torch.Tensor]:
        """One tensor [rows, dim] per prompt, which holds its `Parts` (`assembled`).

        Deviation: the VAE computes in float32, and its latents are then rounded to the encoder's type; a prompt that is
        too long is an error, as with Qwen-Image.

        Raises:
            DataError: a prompt has no source image or is too long, or its image cannot be used.
        """
        found = []
        for prompt in prompts:
            if isinstance(prompt, str):
                raise DataError(f"prompt {prompt[:60]!r}: has no source image, but {self.descriptor.title} edits one")
            image = prompt.source.load()
            text, negative = (self._states(one, image) for one in (prompt.text, self.negative_prompt))
            found.append(assembled(text, negative, self._source_latents(image)))
        return found

    def _states(self, prompt: str, image: Image.Image) -> torch.Tensor:
        """Last hidden states of the text encoder behind the instruction [tokens, dim], those of the picture first."""
        from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as diffusers_edit

        pipeline, device = self.pipeline, self.text_encoders[0].device
        width, height = diffusers_edit.calculate_dimensions(
            diffusers_edit.CONDITION_IMAGE_SIZE, image.width / image.height
        )
        shown = pipeline.image_processor.resize(image, height, width)
        text = pipeline.prompt_template_encode.format(PICTURE + prompt)
        inputs = pipeline.processor(text=[text], images=[shown], padding=True, return_tensors="pt").to(device)
        drop = pipeline.prompt_template_encode_start_idx
        check_length(prompt, inputs.input_ids.shape[1] - drop, pipeline.tokenizer_max_length, self.descriptor.title)
        states = pipeline.text_encoder(
            input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, pixel_values=inputs.pixel_values,
            image_grid_thw=inputs.image_grid_thw, output_hidden_states=True,
        ).hidden_states[-1]  # fmt: skip
        return states[0, drop:].to(self.device)

    def _source_latents(self, image: Image.Image) -> torch.Tensor:
        """[C, h, w], normalised as the transformer has them."""
        from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as diffusers_edit

        width, height = diffusers_edit.calculate_dimensions(diffusers_edit.VAE_IMAGE_SIZE, image.width / image.height)
        pixels = self.pipeline.image_processor.preprocess(image, height, width).unsqueeze(2)
        latents = self.vae.encode(pixels.to(self.vae.device, self.vae.dtype)).latent_dist.mode()
        mean, std = self.channel_statistics(latents)
        return ((latents - mean) / std)[0, :, 0]

    def embedding_parts(self) -> list[str]:
        return [*super().embedding_parts(), "processor", "vae"]

    def embedding_settings(self) -> list[str]:
        return [self.negative_prompt, str(self.vae.dtype)]

    def velocity(self, x_t: torch.Tensor, t: torch.Tensor, cond: Sequence[torch.Tensor]) -> torch.Tensor:
        parts = self._parts(cond)
        return unpack(self._passes(x_t, t, parts, [one.text for one in parts]), *x_t.shape[-2:])

    def guided_velocity(
        self, x_t: torch.Tensor, t: torch.Tensor, cond: Sequence[torch.Tensor], guidance_scale: float
    ) -> torch.Tensor:
        if guidance_scale <= 1:
            return self.velocity(x_t, t, cond)
        parts = self._parts(cond)
        positive = self._passes(x_t, t, parts, [one.text for one in parts])
        negative = self._passes(x_t, t, parts, [one.negative for one in parts])
        return unpack(guided(positive, negative, guidance_scale), *x_t.shape[-2:])

    def _parts(self, cond: Sequence[torch.Tensor]) -> list[Parts]:
        found = {id(one): parts_of(one, self.transformer.config.in_channels) for one in cond}
        return [found[id(one)] for one in cond]  # the images of a prompt share one

    def _passes(
        self, x_t: torch.Tensor, t: torch.Tensor, parts: Sequence[Parts], texts: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """Velocity [N, patches, 4 C] in float32 for `texts`: a pass for each length of text and shape of source."""
        kinds = [(len(text), one.rows, one.columns) for text, one in zip(texts, parts, strict=True)]
        return length_by_length(self._pass, x_t, t, list(zip(texts, parts, strict=True)), kinds)

    def _pass(self, x_t: torch.Tensor, t: torch.Tensor, cond: Sequence[tuple[torch.Tensor, Parts]]) -> torch.Tensor:
        dtype, made = self.transformer.dtype, pack(x_t)
        one, (height, width) = cond[0][1], x_t.shape[-2:]
        source = torch.stack([parts.source for _, parts in cond])
        return self.transformer(
            hidden_states=torch.cat([made.to(dtype), source.to(dtype)], dim=1),
            timestep=t.to(dtype),
            encoder_hidden_states=torch.stack([text for text, _ in cond]).to(dtype),
            img_shapes=[[(1, height // 2, width // 2), (1, one.rows, one.columns)]] * len(x_t),
            return_dict=False,
        )[0][:, : made.shape[1]].float()


def assembled(text: torch.Tensor, negative: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """`Parts` as one tensor [rows, dim] of the type of `text`, from source latents [C, h, w]: the texts, then the
    patches, filled up with zeros, and the digits of four counts at the end."""
    rows, columns = source.shape[-2] // 2, source.shape[-1] // 2
    digits = [digit for count in (len(text), len(negative), rows, columns) for digit in divmod(count, BASE)]
    patches = pack(source[None]).flatten().to(text)
    missing = -(len(patches) + NUMBERS) % text.shape[1]
    rest = torch.cat([patches, text.new_zeros(missing), text.new_tensor(digits)])
    return torch.cat([text, negative, rest.view(-1, text.shape[1])])


def parts_of(cond: torch.Tensor, channels: int) -> Parts:
    """The `Parts` of what `assembled` made; `channels` are those of a patch."""
    digits = [int(digit) for digit in cond.flatten()[-NUMBERS:].tolist()]
    texts, negatives, rows, columns = (digits[k] * BASE + digits[k + 1] for k in range(0, NUMBERS, 2))
    rest = cond[texts + negatives :].flatten()[: rows * columns * channels]
    return Parts(cond[:texts], cond[texts : texts + negatives], rest.view(-1, channels), rows, columns)
