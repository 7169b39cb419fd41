"""What families that are diffusers pipelines have in common: loading, times, the ODE, memory of VAE and encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image

from promptecho.compute.blocks import compile_blocks, repeated_blocks
from promptecho.config.families import Family, misfit
from promptecho.config.fields import Schedule
from promptecho.decoded import decoded_images
from promptecho.errors import ModelError
from promptecho.files import digest, fingerprint
from promptecho.models.locate import locate_cached
from promptecho.t2i.checkpointing import checkpointed
from promptecho.t2i.lengths import Velocity, length_by_length


class DiffusersModel:
    """Base of the models. A family says how it encodes, predicts and decodes; the rest is here.

    Args:
        descriptor: what is said of the family.
        pipeline: an instance of its `pipeline_class`; its modules are frozen here.
        negative_prompt: what guidance leads away from.
    """

    patch_size: ClassVar[int] = 2
    pad_prompts: str = "none"  # for families that may pad what the transformer sees
    one_pass: bool = False  # each call of `velocity` is one pass, whatever the lengths: where passes are counted

    def __init__(self, descriptor: Family, pipeline: Any, *, negative_prompt: str = "") -> None:
        from promptecho.t2i.fused import fuse_norms

        self.descriptor, self.pipeline = descriptor, pipeline
        self.transformer = pipeline.transformer
        self.vae, self.scheduler = pipeline.vae, pipeline.scheduler
        self.text_encoders = encoders_of(descriptor, pipeline)
        self.negative_prompt = negative_prompt
        self.device = self.transformer.device
        self.frames = descriptor.frames  # of a sample; 1: images
        self._negative: torch.Tensor | None = None
        self._source: tuple[str, str | None] = (str(getattr(pipeline.config, "_name_or_path", "")), None)
        for module in (pipeline.transformer, *self.text_encoders, pipeline.vae):
            module.requires_grad_(False).eval()
        fuse_norms(pipeline.transformer)
        self.share_inputs()

    @classmethod
    def load(
        cls,
        descriptor: Family,
        path: str,
        *,
        revision: str | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        negative_prompt: str = "",
        vae_slicing: bool = False,
        vae_tiling: bool = False,
        pad_prompts: str = "none",
        frames: int | None = None,
        transformer_device: torch.device | str | None = None,
        text_encoder_device: torch.device | str | None = None,
    ):
        """Load a pipeline folder or hub id. The VAE stays in float32, as the paper's authors run it.

        Args:
            frames: of a sample, for families that make videos; None: as many as the family's descriptor says.
            transformer_device: where the transformer stays if not on `device`: on the CPU, for an engine that takes
                it from there piece by piece.
            text_encoder_device: likewise for the text encoders: on the CPU, until a prompt has to be encoded.

        Raises:
            ModelError: the folder is missing or not a pipeline of this family.
        """
        quiet_diffusers()
        if problem := misfit(descriptor, path):
            raise ModelError(f"{path}: {problem}")
        try:
            own = cls.own_parts(path, revision)
            pipeline = pipeline_class(descriptor).from_pretrained(path, revision=revision, dtype=dtype, **own)
        except Exception as error:  # anything from OSError to SafetensorError; all mean the same here
            reason = " ".join(str(error).split())[:300]
            title = descriptor.title
            raise ModelError(f"{path}: cannot load a {title} pipeline ({reason}); check models.t2i.path") from error
        if type(pipeline.transformer).__name__ != descriptor.transformer_class:
            raise ModelError(
                f"{path}: holds a {type(pipeline.transformer).__name__}, not a {descriptor.title} pipeline; check "
                "models.t2i.family and models.t2i.path"
            )
        pipeline.vae.to(device)
        for encoder in encoders_of(descriptor, pipeline):
            encoder.to(device if text_encoder_device is None else text_encoder_device)
        pipeline.transformer.to(device if transformer_device is None else transformer_device)
        pipeline.vae.to(torch.float32)
        if torch.device(device).type == "cuda":
            channels_last(pipeline.vae)
        if vae_slicing:
            pipeline.vae.enable_slicing()
        if vae_tiling:
            pipeline.vae.enable_tiling()
        pipeline.set_progress_bar_config(disable=True)
        model = cls(descriptor, pipeline, negative_prompt=negative_prompt)
        model.device = torch.device(device)
        model._source, model.pad_prompts = (path, revision), pad_prompts
        model.frames = model.frames if frames is None else frames
        return model

    # What a family provides.

    @classmethod
    def own_parts(cls, path: str, revision: str | None) -> dict[str, Any]:
        """Parts of the pipeline at `path` that diffusers does not load itself, by their names."""
        return {}

    def default_sigmas(self, num_inference_steps: int) -> Any:
        """The pipeline's own, before the scheduler's shift; None: the scheduler's spacing."""
        return None

    def shift(self, image_seq_len: int, num_inference_steps: int) -> float:
        """The scheduler's mu for an image of so many tokens; schedulers whose shift is static do not use it."""
        return image_shift(image_seq_len, self.scheduler.config)

    def step_time(self, t: torch.Tensor) -> torch.Tensor:
        """A sampler's time in [0, 1] with the rounding that it has after the pipeline's way over [0, 1000]."""
        return t

    @staticmethod
    def templated(tokenizer: Any, prompt: str) -> str:
        """The whole text that the text encoder sees of a prompt, but for what the tokenizer adds by itself."""
        return prompt

    @classmethod
    def prompt_limit(cls, configs: dict[str, dict[str, Any]]) -> int:
        """How many tokens `templated` may have; `configs` are those of the text encoders and the transformer by their
        names in the pipeline, {} where there is none."""
        raise NotImplementedError

    def encode_prompts(self, prompts: Sequence[str]) -> list[torch.Tensor]:
        raise NotImplementedError

    def padded_length(self, tokens: int) -> int:
        """How many tokens the transformer makes of a prompt's embedding of so many; embeddings for which the number is
        equal need no mask among each other. The same for all: lengths do not matter to this family."""
        return 0

    def guided_velocity(
        self, x_t: torch.Tensor, t: torch.Tensor, cond: Sequence[torch.Tensor], guidance_scale: float
    ) -> torch.Tensor:
        raise NotImplementedError

    def normalised(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents as the VAE takes them."""
        raise NotImplementedError

    def share_inputs(self) -> None:
        """Have layers of a block that read the same input computed together (`Projected`), for their adapters' sake.
        Without an adapter, and in float32, results are the same bits."""

    def use_real_rope(self) -> None:
        """Have the blocks compute rotary embeddings without complex numbers, which are not compiled."""

    # What follows from it.

    @property
    def latent_channels(self) -> int:
        """Channels of the VAE's latents, of which the transformer has as many."""
        return self.transformer.config.in_channels

    @property
    def pixels_per_latent(self) -> int:
        """By how much the VAE makes the sides of an image smaller."""
        return self.pipeline.vae_scale_factor

    def without_masks(
        self, velocity: Velocity, x_t: torch.Tensor, t: torch.Tensor, cond: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """`velocity(x_t, t, cond)`, in one pass for each length of prompts unless `one_pass` forbids it."""
        if self.one_pass:
            return velocity(x_t, t, cond)
        return length_by_length(velocity, x_t, t, cond, [self.padded_length(len(one)) for one in cond])

    @property
    def lora_targets(self) -> dict[str, tuple[str, ...]]:
        return {"all": self.descriptor.lora_targets, "attention": self.descriptor.lora_attention}

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        scale = self.pixels_per_latent * self.patch_size
        if height % scale or width % scale:
            raise ModelError(
                f"height and width {height} x {width} pixels: both must be multiples of {scale}; correct them in "
                "models.t2i, in training, or in the image set"
            )
        return (self.latent_channels, 2 * (height // scale), 2 * (width // scale))

    def negative(self, n: int) -> list[torch.Tensor]:
        if self._negative is None:
            self._negative = self.encode_prompts([self.negative_prompt])[0]
        return [self._negative] * n

    def set_negative(self, embedding: torch.Tensor) -> None:
        """Take the negative prompt's conditioning from elsewhere (a cache)."""
        self._negative = embedding

    def timesteps(
        self, num_inference_steps: int, height: int, width: int, schedule: Schedule = "pipeline"
    ) -> torch.Tensor:
        *_, h, w = self.latent_shape(height, width)
        config = self.scheduler.config
        scheduler = type(self.scheduler).from_config(config)
        mu = self.shift((h // 2) * (w // 2), num_inference_steps)
        sigmas = self.default_sigmas(num_inference_steps) if schedule == "pipeline" else None
        given = {"num_inference_steps": num_inference_steps} if sigmas is None else {"sigmas": sigmas}
        scheduler.set_timesteps(**given, mu=mu, device=self.device)
        return scheduler.sigmas.float()

    @torch.no_grad()
    def sample(
        self, noise: torch.Tensor, cond: Sequence[torch.Tensor], *, num_inference_steps: int, guidance_scale: float,
        schedule: Schedule = "pipeline",
    ) -> torch.Tensor:  # fmt: skip
        scale = self.pixels_per_latent
        height, width = noise.shape[-2] * scale, noise.shape[-1] * scale
        sigmas = self.timesteps(num_inference_steps, height, width, schedule)
        x = noise
        for t, t_next in zip(sigmas[:-1], sigmas[1:], strict=True):
            x = x + (t_next - t) * self.guided_velocity(x, self.step_time(t).expand(len(x)), cond, guidance_scale)
        return x

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> list[Image.Image]:
        pixels = self.vae.decode(self.normalised(latents), return_dict=False)[0]
        if pixels.ndim == 5:  # a video VAE: the one frame
            pixels = pixels[:, :, 0]
        return decoded_images(self.pipeline.image_processor.postprocess(pixels, output_type="pt"))

    def enable_activation_checkpointing(self, mode: str = "full") -> None:
        """Compute activations of the transformer's blocks again in the backward pass; passes without gradient keep
        none anyway. Works before and after an adapter was put on."""
        run = checkpointed if mode == "selective" else None  # None: diffusers' own, which keeps nothing
        self.pipeline.transformer.enable_gradient_checkpointing(run)

    def compile_blocks(self, backend: str = "inductor") -> int:
        """Compile the transformer's repeated blocks; returns how many there are. Works before and after an adapter was
        put on. `backend` is torch.compile's."""
        self.use_real_rope()
        return compile_blocks(repeated_blocks(self.pipeline.transformer), backend)

    def move_text_encoder(self, device: torch.device | str) -> None:
        """Bring the text encoders to a device, or take them off the GPU with "cpu"."""
        elsewhere = [encoder for encoder in self.text_encoders if encoder.device != torch.device(device)]
        for encoder in elsewhere:
            encoder.to(device)
        if elsewhere and self.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def text_identity(self) -> str:
        """What decides a prompt's embedding besides the prompt: family, encoders and tokenizers, and their type.

        Raises:
            ModelError: the pipeline was not loaded from files, or they are gone.
        """
        path, revision = self._source
        folder = Path(path) if Path(path).is_dir() else locate_cached(path, revision)
        names = self.embedding_parts()
        files = [] if folder is None else sorted(
            file for name in names for file in (folder / name).rglob("*") if file.is_file()
        )  # fmt: skip
        if folder is None or not files:
            raise ModelError(f"{path}: no text encoder's files in it; load it again, or set models.prompt_cache: null")
        weights = [[str(file.relative_to(folder)), fingerprint(file)] for file in files]
        version = [self.descriptor.version] if self.descriptor.version > 1 else []
        more = self.embedding_settings()
        return digest([self.descriptor.name, str(self.text_encoders[0].dtype), weights, *version, *more])

    def embedding_parts(self) -> list[str]:
        """Parts of the pipeline that decide what `encode_prompts` gives."""
        return [name for one in self.descriptor.text_encoders for name in (one.part, one.tokenizer)]

    def embedding_settings(self) -> list[str]:
        """What decides it beside parts and prompts."""
        return []


def quiet_diffusers() -> None:
    """Errors of the libraries show, and nothing else: their bars fill logs, a warning about float32 modules names none,
    and one about CLIP's 77 tokens comes for every prompt that T5 reads whole."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def channels_last(vae: torch.nn.Module) -> None:
    """Lay out the weights of two-dimensional convolutions as cuDNN has fast kernels for; results then follow. Three-
    dimensional ones, of VAEs for video, are left as they are."""
    if not any(parameter.ndim == 5 for parameter in vae.parameters()):
        vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def encoders_of(descriptor: Family, pipeline: Any) -> list[torch.nn.Module]:
    """The text encoders that a pipeline has; some do without one of theirs."""
    found = [getattr(pipeline, one.part, None) for one in descriptor.text_encoders]
    return [encoder for encoder in found if encoder is not None]


def pipeline_class(descriptor: Family) -> Any:
    """The class of a family's pipelines.

    Raises:
        ModelError: this version of diffusers does not have it.
    """
    import diffusers

    try:
        return getattr(diffusers, descriptor.pipeline_class)
    except AttributeError:
        raise ModelError(
            f"family {descriptor.name}: diffusers {diffusers.__version__} has no {descriptor.pipeline_class}"
        ) from None


def image_shift(image_seq_len: int, config: Any) -> float:
    """The scheduler's mu for an image of so many tokens, as the pipelines compute it; for static shifts unused."""
    base_len, max_len = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    base, top = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    slope = (top - base) / (max_len - base_len)
    return image_seq_len * slope + (base - slope * base_len)
