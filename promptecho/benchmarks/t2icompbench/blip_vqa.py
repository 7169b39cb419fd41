"""BLIP-VQA (transformers' BlipForQuestionAnswering): how likely the answer to a question about an image is "yes".

As T2I-CompBench's BLIPvqa_eval/models/blip_vqa.py: the image at 480 x 480 pixels, the question opened by BLIP's own
[ENC] and cut at 35 tokens, and of the answer's first token "yes" against "no". (The library's `generate` opens the
question with [CLS] and takes the checkpoint's own image size.)

The checkpoint at the hub has position embeddings for 384 x 384 pixels by the library's default, made from those for
480 x 480; the library interpolates them back. How far the numbers then lie from official ones, nobody measured.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from promptecho.benchmarks.geneval.clip_colors import MEAN, STD
from promptecho.benchmarks.geneval.weights import exact_float32
from promptecho.benchmarks.perception import PerceptionFailure
from promptecho.benchmarks.t2icompbench.loading import WHERE, load_with_tokenizer
from promptecho.benchmarks.t2icompbench.rules import question, yes_probability
from promptecho.errors import ModelError
from promptecho.vlm.model import model_revision

SIZE = 480  # pixels of each side
QUESTION_TOKENS = 35


def blip_pixels(image: Image.Image) -> np.ndarray:
    """An image as BLIP-VQA sees it, stretched to a square: `[3, SIZE, SIZE]` float32."""
    square = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    normal = (np.asarray(square, np.float32) / 255 - np.asarray(MEAN, np.float32)) / np.asarray(STD, np.float32)
    return normal.transpose(2, 0, 1)


class BlipVqa:
    """Asks BLIP-VQA; `path` is a folder or hub id.

    Raises:
        ModelError: the model is not available, is incomplete, or its tokenizer does not know "yes" and "no".
    """

    def __init__(self, path: str, device: str = "cpu"):
        from transformers import BertTokenizer, BlipForQuestionAnswering

        self._model, self._tokenizer = load_with_tokenizer(
            BlipForQuestionAnswering, BertTokenizer, path, "BLIP-VQA", device
        )
        self.revision = model_revision(path)
        self._device = device
        text = self._model.config.text_config
        # BLIP appends [DEC] and [ENC] to BERT's vocabulary, in this order; an answer begins with the first.
        self._dec, self._enc = text.bos_token_id, text.bos_token_id + 1
        self._yes, self._no = (self._tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
        if self._tokenizer.unk_token_id in (self._yes, self._no) or self._enc >= text.vocab_size:
            raise ModelError(
                f"{path}: its tokenizer of {len(self._tokenizer)} entries is not BLIP-VQA's, whose model has "
                f"{text.vocab_size}; download the model's tokenizer files as well, or {WHERE}"
            )

    @torch.inference_mode()
    def logits(self, image: Image.Image, questions: Sequence[str]) -> list[tuple[float, float]]:
        """Of "yes" and "no" as the first token of the answer to each question.

        The image is encoded once. Each question is asked by itself: in a batch, the library's decoder (5.23) would look
        at the padding behind shorter ones.

        Raises:
            PerceptionFailure: an answer is not finite.
        """
        pixels = torch.from_numpy(blip_pixels(image)[None]).to(self._device)
        with exact_float32():
            seen = self._model.vision_model(pixels, interpolate_pos_encoding=True).last_hidden_state
            found = torch.stack([self._logits(seen, asked) for asked in questions]).cpu()
        if not torch.isfinite(found).all():
            raise PerceptionFailure(f"BLIP-VQA's answer to {questions[0]!r} or a later question is not finite")
        return [(float(yes), float(no)) for yes, no in found]

    def _logits(self, seen: torch.Tensor, asked: str) -> torch.Tensor:
        """Of "yes" and "no" [2], from an encoded image [1, patches, D]."""
        tokens = self._tokenizer(asked, truncation=True, max_length=QUESTION_TOKENS, return_tensors="pt").input_ids
        tokens[:, 0] = self._enc
        read = self._model.text_encoder(input_ids=tokens.to(self._device), encoder_hidden_states=seen)
        start = torch.tensor([[self._dec]], device=self._device)
        answer = self._model.text_decoder(input_ids=start, encoder_hidden_states=read.last_hidden_state)
        return answer.logits[0, 0, [self._yes, self._no]]

    def probabilities(self, image: Image.Image, phrases: Sequence[str]) -> list[float]:
        """Of "yes" about each noun phrase, to four decimals.

        Raises:
            PerceptionFailure: as `logits`.
        """
        return [yes_probability(*both) for both in self.logits(image, [question(phrase) for phrase in phrases])]
