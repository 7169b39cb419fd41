"""The colour of a detected object: zero-shot with CLIP ViT-L/14 (OpenAI's weights), as GenEval asks it.

Prompts and normalisation are in colors.py, crops in crops.py; here are the features. The image transform is the
official one (open_clip's): shortest edge to 224 with Pillow's bicubic filter, centre crop with the offset rounded
half to even, CLIP's channel means. It is written out because the library's image processor rounds that offset down.

OpenAI's CLIP was trained with QuickGELU. transformers takes the activation from the checkpoint's config (`quick_gelu`
in openai/clip-vit-large-patch14) and is right without further care; open_clip 3 builds its `ViT-L-14` with plain GELU
and only warns. The activation is part of the recorded settings.

Deviation: float32 throughout; officially image features are computed under float16 autocast.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from promptecho.benchmarks.geneval.colors import classify_colors, color_texts
from promptecho.benchmarks.geneval.weights import WHERE, exact_float32, load_frozen, one_line
from promptecho.benchmarks.perception import PerceptionFailure
from promptecho.errors import ModelError
from promptecho.models.locate import stage_model
from promptecho.vlm.model import model_revision
from promptecho.vlm.processor import check_model_path

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BATCH = 16


def clip_pixels(crop: Image.Image, size: int = 224) -> np.ndarray:
    """One crop as CLIP sees it: `[3, size, size]` float32."""
    image = crop.convert("RGB")
    short, long = sorted(image.size)
    if short != size:
        other = int(size * long / short)
        image = image.resize((size, other) if image.width <= image.height else (other, size), Image.Resampling.BICUBIC)
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    image = image.crop((left, top, left + size, top + size))
    normal = (np.asarray(image, np.float32) / 255 - np.asarray(MEAN, np.float32)) / np.asarray(STD, np.float32)
    return normal.transpose(2, 0, 1)


class ClipColors:
    """Names the colour of crops; `path` is the folder or hub id of a CLIP model. Text features are kept per class."""

    def __init__(self, path: str, device: str = "cpu"):
        """Raises ModelError: model or tokenizer is not available or is incomplete."""
        from transformers import CLIPModel, CLIPTokenizer

        checked = stage_model(check_model_path(path, "CLIP"))
        self._model = load_frozen(CLIPModel, checked, "colour classifier", device)
        self.revision = model_revision(path)
        try:
            self._tokenizer = CLIPTokenizer.from_pretrained(checked)
        except Exception as error:  # as in load_frozen
            raise ModelError(f"{path}: cannot load the tokenizer ({one_line(error)}); {WHERE}") from error
        config = self._model.config
        # Without its files the library makes a tokenizer of three words.
        if len(self._tokenizer) != config.text_config.vocab_size:
            raise ModelError(
                f"{path}: the tokenizer has {len(self._tokenizer)} entries, the model {config.text_config.vocab_size};"
                " download the model's tokenizer files as well"
            )
        self.activation = config.vision_config.hidden_act
        self._size = config.vision_config.image_size
        self._device = device
        self._texts: dict[str, np.ndarray] = {}

    @torch.inference_mode()
    def text_features(self, class_name: str) -> np.ndarray:
        """Features `[colour, template, dim]` of the prompts for a class, unnormalised."""
        if class_name not in self._texts:
            texts = color_texts(class_name)
            flat = [text for templates in texts for text in templates]
            tokens = self._tokenizer(flat, padding=True, return_tensors="pt").to(self._device)
            with exact_float32():
                features = self._model.get_text_features(**tokens).pooler_output
            self._texts[class_name] = features.cpu().numpy().reshape(len(texts), len(texts[0]), -1)
        return self._texts[class_name]

    @torch.inference_mode()
    def image_features(self, crops: Sequence[Image.Image]) -> np.ndarray:
        """Features `[n, dim]` of crops, unnormalised."""
        parts = []
        for start in range(0, len(crops), BATCH):
            pixels = np.stack([clip_pixels(crop, self._size) for crop in crops[start : start + BATCH]])
            with exact_float32():
                output = self._model.get_image_features(pixel_values=torch.from_numpy(pixels).to(self._device))
            parts.append(output.pooler_output.cpu().numpy())
        return np.concatenate(parts)

    def __call__(self, class_name: str, crops: Sequence[Image.Image]) -> list[str]:
        """The colour of each crop of an object of one class.

        Raises:
            PerceptionFailure: an image feature is not finite.
        """
        if not crops:
            return []
        images = self.image_features(crops)
        if not np.isfinite(images).all():
            raise PerceptionFailure(f"the colour classifier's answer for {class_name!r} is not finite")
        return classify_colors(self.text_features(class_name), images)
