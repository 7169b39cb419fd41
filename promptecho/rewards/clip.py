"""What rewards from CLIP share: embeddings of images and texts, and a reward that follows from their cosine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image

from promptecho.config.descriptors import ModelOptions
from promptecho.errors import ModelError
from promptecho.models.locate import check_model_path, stage_model
from promptecho.rewards.base import Details, RewardContext, finite, in_batches
from promptecho.rewards.texts import CutTexts
from promptecho.shipped import CLIPS, is_shipped, model_path


class ClipEncoder:
    """A frozen CLIP of transformers with its own tokenizer and image processor.

    Images become pixels through Pillow, as in the authors' codes. Texts are padded to the longest that CLIP reads, so
    that an embedding follows from its text alone but for rounding.

    Args:
        name: of the reward, for messages.
        device: where to compute; None: the CPU.

    Raises:
        ModelError: the model is not here, or is no CLIP.
    """

    def __init__(self, name: str, options: ModelOptions, device: torch.device | None, batch_size: int):
        import transformers
        from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

        self.name, self.batch_size, self.device = name, batch_size, device or torch.device("cpu")
        revision: Any = options.revision  # the library's annotation leaves None out
        if is_shipped(options.path) and options.path not in CLIPS:
            raise ModelError(f"{name}.path: {options.path} is no CLIP; CLIPs ship as {', '.join(CLIPS)}")
        found = model_path(options.path, "clip")
        place = stage_model(check_model_path(found, "CLIP", revision), revision)
        if not sys.stderr.isatty():
            transformers.utils.logging.disable_progress_bar()
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(place, revision=revision)
            self.processor = AutoImageProcessor.from_pretrained(place, revision=revision, backend="pil")
            model = CLIPModel.from_pretrained(place, revision=revision, dtype=getattr(torch, options.dtype))
        except Exception as error:  # the library raises anything from OSError to SafetensorError
            reason = " ".join(str(error).split())[:300]
            raise ModelError(
                f"{name}.path: {options.path}: cannot load CLIP ({reason}); the folder needs model, tokenizer and "
                "preprocessor_config.json"
            ) from error
        self.model: Any = model.eval().requires_grad_(False).to(self.device)
        self.most: int = self.model.config.text_config.max_position_embeddings
        self.cut = CutTexts(name, "CLIP", self.tokenizer, self.most)

    @torch.inference_mode()
    def images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Embeddings [N, width] of `images[N]`, of length 1, in float32 on the CPU."""
        found = []
        for some in in_batches(images, self.batch_size):
            pixels = self.processor([one.convert("RGB") for one in some], return_tensors="pt")["pixel_values"]
            found.append(self._unit(self.model.get_image_features(pixels.to(self.device, self.model.dtype))))
        return torch.cat(found)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embeddings [N, width] of `texts[N]`, likewise. What a text says beyond the tokens that the model reads (most
        CLIPs: 77) counts for nothing, which a line on stderr tells."""
        distinct = list(dict.fromkeys(texts))
        self.cut.tell(distinct)
        found = []
        for some in in_batches(distinct, self.batch_size):
            inputs = self.tokenizer(
                some, padding="max_length", truncation=True, max_length=self.most, return_tensors="pt"
            ).to(self.device)
            features = self.model.get_text_features(inputs["input_ids"], attention_mask=inputs["attention_mask"])
            found.append(self._unit(features))
        return torch.cat(found)[[distinct.index(text) for text in texts]]

    def _unit(self, output: Any) -> torch.Tensor:
        return torch.nn.functional.normalize(output.pooler_output.float(), dim=-1).cpu()


class CosineReward:
    """A reward that follows from the cosine of the embeddings of an image and its prompt.

    Args:
        of_cosines: from cosines [N] to rewards [N].
        formula: the same in words.
        prefix: what stands before each prompt.
    """

    def __init__(
        self, encoder: ClipEncoder, of_cosines: Callable[[torch.Tensor], torch.Tensor], *, formula: str,
        prefix: str = "",
    ):  # fmt: skip
        self.encoder, self.of_cosines, self.formula, self.prefix = encoder, of_cosines, formula, prefix

    def __call__(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> list[float]:
        """Rewards of `images[N]` for `prompts[N]`.

        Raises:
            RewardError: a reward is not finite; names prompt id and image.
        """
        if not images:
            return []
        texts = self.encoder.texts([self.prefix + prompt for prompt in prompts])
        rewards = self.of_cosines((self.encoder.images(images) * texts).sum(-1))
        return finite(self.encoder.name, rewards.tolist(), images, prompt_ids)

    def details(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> Details:
        """As `__call__`, with the tokens of each text and whether it was cut."""
        rewards = self(images, prompts, prompt_ids)
        facts, told = self.encoder.cut.facts([self.prefix + prompt for prompt in prompts])
        return Details(list(rewards), facts, f"{self.formula}; {told}")


def clip_encoder(name: str, context: RewardContext) -> ClipEncoder:
    """The encoder that the options of a reward name."""
    return ClipEncoder(name, context.options, context.device, context.batch_size)
