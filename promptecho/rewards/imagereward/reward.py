"""ImageReward: what people preferred of images for a prompt, by a BLIP that was taught it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from promptecho.errors import ModelError
from promptecho.files import read_json
from promptecho.models.locate import check_model_path, stage_model
from promptecho.rewards.base import Details, RewardContext, finite, in_batches
from promptecho.rewards.heads import score
from promptecho.rewards.imagereward.model import ImageRewardModel, build_model
from promptecho.rewards.imagereward.options import ImageRewardSection
from promptecho.rewards.tensors import read_tensors
from promptecho.rewards.texts import CutTexts

NAME = "imagereward"
TOKENS = 35  # of a text, begin and end counted; shorter ones are padded to them
MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072  # of the head's numbers, as the authors give them
# Of pixels from 0 to 1, by colour: CLIP's.
PIXEL_MEAN, PIXEL_DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ImageReward:
    """ImageReward (Xu et al. 2023, arXiv 2304.05977): the head's number of the text's first token, which
    has read text and image, with a fixed mean taken off and divided by a fixed deviation.

    Deviation from the authors' code: images with transparency or palette become RGB before they are resized, not after.
    """

    def __init__(self, model: ImageRewardModel, tokenizer: Any, device: torch.device | None, batch_size: int):
        self.device, self.batch_size = device or torch.device("cpu"), batch_size
        self.vision, self.text = model.vision.to(self.device), model.text.to(self.device)
        self.head, self.size, self.tokenizer = model.head, model.size, tokenizer
        self.cut = CutTexts(NAME, "ImageReward", tokenizer, TOKENS)

    @torch.inference_mode()
    def __call__(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> list[float]:
        """Rewards of `images[N]` for `prompts[N]`, mostly from -2 to 2.

        Raises:
            RewardError: a reward is not finite; names prompt id and image.
        """
        self.cut.tell(prompts)
        rewards: list[float] = []
        for some in in_batches([*zip(images, prompts, strict=True)], self.batch_size):
            first = self._read([image for image, _ in some], [prompt for _, prompt in some])
            rewards += ((score(self.head, first) - MEAN) / DEVIATION).tolist()
        return finite(NAME, rewards, images, prompt_ids)

    def details(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> Details:
        """As `__call__`, with the tokens of each text and whether it was cut."""
        rewards = self(images, prompts, prompt_ids)
        facts, told = self.cut.facts(prompts)
        return Details(list(rewards), facts, f"(head - {MEAN:.4g}) / {DEVIATION:.4g}; {told}")

    def _read(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> torch.Tensor:
        """The first token's state [N, width] of texts that have read their images, in float32 on the CPU."""
        pixels = torch.from_numpy(np.stack([pixels_of(image, self.size) for image in images]))
        seen = self.vision(pixels.to(self.device, self.vision.dtype)).last_hidden_state
        inputs = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        ).to(self.device)
        read = self.text(inputs["input_ids"], attention_mask=inputs["attention_mask"], encoder_hidden_states=seen)
        return read.last_hidden_state[:, 0].float().cpu()


def pixels_of(image: Image.Image, size: int) -> np.ndarray:
    """An image as ImageReward sees it, [3, size, size] in float32: the short side resized to `size` bicubically, and
    the middle cut out, rounded as torchvision does."""
    image = image.convert("RGB")
    short = min(image.size)
    width, height = (int(size * side / short) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    small = image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))
    values = np.asarray(small, np.float32) / 255
    mean, deviation = np.array(PIXEL_MEAN, np.float32), np.array(PIXEL_DEVIATION, np.float32)
    return ((values - mean) / deviation).transpose(2, 0, 1)


def build(context: RewardContext) -> ImageReward:
    """As a descriptor's `build`.

    Raises:
        ModelError: model or tokenizer are not to be had, or do not fit one another.
    """
    options: ImageRewardSection = context.options
    weights, config = _files(options, "path", "ImageReward")
    (vocabulary,) = _files(options, "tokenizer", "tokenizer")
    where = f"{NAME}.path: {options.path}"
    model = build_model(
        read_tensors(weights, where, "ImageReward's weights"), read_json(config), where, getattr(torch, options.dtype)
    )
    tokenizer = bert_tokenizer(vocabulary)
    if len(tokenizer) != model.vocabulary:
        raise ModelError(
            f"{NAME}.tokenizer: {options.tokenizer}: its {vocabulary.name} makes {len(tokenizer)} tokens with [DEC] "
            f"and [ENC], and the model has {model.vocabulary}; take the one that it was taught with"
        )
    return ImageReward(model, tokenizer, context.device, context.batch_size)


def bert_tokenizer(vocabulary: Path) -> Any:
    """BERT's, uncased, with the two tokens that BLIP adds."""
    import transformers

    with open(vocabulary, encoding="utf-8") as lines:
        words = {line.rstrip("\n"): number for number, line in enumerate(lines)}
    tokenizer = transformers.BertTokenizer(vocab=words)
    tokenizer.add_special_tokens({"bos_token": "[DEC]", "additional_special_tokens": ["[ENC]"]})
    return tokenizer


def _files(options: ImageRewardSection, key: str, what: str) -> list[Path]:
    """Where the files of one of its models are, fetched from the hub where only the hub has them.

    Raises:
        ModelError: they are not to be had.
    """
    wanted = options.models[key]
    try:
        place = Path(stage_model(check_model_path(wanted.source, what, wanted.revision, wanted.files), wanted.revision))
    except ModelError as error:
        raise ModelError(f"{NAME}.{key}: {error}") from None
    if place.is_dir():
        return [place / name for name in wanted.files]
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        return [Path(hf_hub_download(wanted.source, name, revision=wanted.revision)) for name in wanted.files]
    except Exception as error:  # the hub's client raises many types; all mean that the files are not to be had
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{NAME}.{key}: {wanted.source}: cannot get {', '.join(wanted.files)} ({reason})") from error
