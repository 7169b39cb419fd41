"""The cosine of image and text by CLIP ViT-B/32 (transformers' CLIPModel, OpenAI's weights).

As T2I-CompBench's CLIPScore_eval/CLIP_similarity.py with OpenAI's own transform of images. It runs in float32, where
the published code is in float16 on GPUs.
"""

from __future__ import annotations

import torch
from PIL import Image

from promptecho.benchmarks.geneval.clip_colors import clip_pixels
from promptecho.benchmarks.geneval.weights import exact_float32
from promptecho.benchmarks.perception import PerceptionFailure
from promptecho.benchmarks.t2icompbench.loading import WHERE, load_with_tokenizer
from promptecho.benchmarks.t2icompbench.rules import cosine
from promptecho.errors import DataError, ModelError
from promptecho.vlm.model import model_revision


class ClipSimilarity:
    """Compares images with texts; `path` is a folder or hub id.

    Raises:
        ModelError: model or tokenizer is not available or is incomplete.
    """

    def __init__(self, path: str, device: str = "cpu"):
        from transformers import CLIPModel, CLIPTokenizer

        self._model, self._tokenizer = load_with_tokenizer(CLIPModel, CLIPTokenizer, path, "CLIP", device)
        self.revision = model_revision(path)
        self._device = device
        text = self._model.config.text_config
        self._longest = text.max_position_embeddings
        if len(self._tokenizer) != text.vocab_size:
            raise ModelError(
                f"{path}: the tokenizer has {len(self._tokenizer)} entries, the model {text.vocab_size}; download the "
                f"model's tokenizer files as well, or {WHERE}"
            )

    @torch.inference_mode()
    def similarity(self, image: Image.Image, text: str) -> float:
        """The cosine of their features, in -1 to 1.

        Raises:
            DataError: the text is longer than CLIP reads, which the published code refuses, too.
            PerceptionFailure: the features are not finite.
        """
        tokens = self._tokenizer(text, return_tensors="pt").to(self._device)
        if (length := tokens.input_ids.shape[1]) > self._longest:
            raise DataError(f"{text!r}: {length} tokens, and CLIP reads {self._longest}; shorten the prompt")
        pixels = torch.from_numpy(clip_pixels(image, self._model.config.vision_config.image_size)[None])
        with exact_float32():
            seen = self._model.get_image_features(pixel_values=pixels.to(self._device)).pooler_output
            read = self._model.get_text_features(**tokens).pooler_output
        if not (torch.isfinite(seen).all() and torch.isfinite(read).all()):
            raise PerceptionFailure(f"CLIP's features of the image or of {text!r} are not finite")
        return cosine(seen[0].cpu().numpy(), read[0].cpu().numpy())
