"""Log-probabilities of label tokens, teacher-forced as the answer to a query on an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image

from promptecho.errors import DataError, counted
from promptecho.vlm.inputs import LabelledText, batch_inputs, label_text
from promptecho.vlm.model import Vlm

ROWS_PER_SOFTMAX = 512  # rows of float32 logits at a time: 0.3 GB at a vocabulary of 150,000


@dataclass(frozen=True)
class TokenLogProbs:
    """One label: `tokens[L]` as text, `token_ids[L]`, and `log_probs[L]` (float32, on the CPU, natural log)."""

    tokens: list[str]
    token_ids: list[int]
    log_probs: torch.Tensor

    @property
    def mean(self) -> float:
        """Mean log-probability per token."""
        return self.log_probs.double().mean().item()


@torch.no_grad()
def label_log_probs(
    vlm: Vlm,
    images: Sequence[Image.Image],
    labels: Sequence[str],
    query: str,
    *,
    batch_size: int,
    include_eos: bool = False,
    names: Sequence[str] | None = None,
) -> list[TokenLogProbs]:
    """For each pair of `images[N]` and `labels[N]`: log p(label token | image, query, label tokens before it).

    Padding is on the right, so that a causal model's label positions never see it and position ids are those of a
    single run; the language-model head runs on the label positions only (`logits_to_keep`); log-softmax in float32.
    Results don't depend on the batch (float32: to 1e-5) and come in the order of the inputs.

    Args:
        names: what to call each label in an error, for example "prompt 17".

    Raises:
        DataError: an empty label, one that exceeds the context, or unequal numbers of images and labels.
        ModelError: the chat template does not give the label back.
    """
    if len(images) != len(labels):
        there = f"{counted(len(images), 'image')} but {counted(len(labels), 'label')}"
        raise DataError(f"{there}; give one label per image")
    names = names or [f"label {index}" for index in range(len(labels))]
    # A group of images shares its label: render and tokenize each label once.
    known: dict[str, LabelledText] = {}
    for label, name in zip(labels, names, strict=True):
        if label not in known:
            known[label] = label_text(vlm, query, label, name=name, include_eos=include_eos)
    texts = [known[label] for label in labels]
    results: list[TokenLogProbs | None] = [None] * len(texts)
    order = sorted(range(len(texts)), key=lambda index: len(texts[index].label_ids))  # less padding
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        rows = _batch_log_probs(
            vlm, [images[i] for i in chosen], [texts[i] for i in chosen], [names[i] for i in chosen]
        )
        for index, row in zip(chosen, rows, strict=True):
            results[index] = row
    return results  # type: ignore[return-value]


def _batch_log_probs(
    vlm: Vlm, images: list[Image.Image], texts: list[LabelledText], names: list[str]
) -> list[TokenLogProbs]:
    inputs = batch_inputs(vlm, images, [text.text for text in texts], padding_side="right")
    input_ids = inputs["input_ids"]  # [B, T]
    lengths = inputs["attention_mask"].sum(dim=1).tolist()
    keep = torch.zeros(input_ids.shape, dtype=torch.bool)  # positions whose logits predict a label token
    for row, (text, length, name) in enumerate(zip(texts, lengths, names, strict=True)):
        count = len(text.label_ids)
        if length > vlm.context_length:
            raise DataError(
                f"{name}: the label's {count} tokens and {length - count} of image and query exceed the context of "
                f"{vlm.path} ({vlm.context_length} tokens); shorten the label or the image"
            )
        if input_ids[row, length - count : length].tolist() != text.label_ids:
            raise DataError(f"{name}: the processor of {vlm.path} changes the label's tokens; it cannot be scored")
        keep[row, length - count - 1 : length - 1] = True
    keep = keep.to(input_ids.device)
    logits = vlm.model(**inputs, logits_to_keep=keep, use_cache=False).logits  # [sum of label lengths, V]
    targets = input_ids[:, 1:][keep[:, :-1]]  # the token after each kept position
    log_probs = torch.cat(
        [
            -F.cross_entropy(part.float(), target, reduction="none")
            for part, target in zip(logits.split(ROWS_PER_SOFTMAX), targets.split(ROWS_PER_SOFTMAX), strict=True)
        ]
    ).cpu()
    parts = log_probs.split([len(text.label_ids) for text in texts])
    return [
        TokenLogProbs([vlm.tokenizer.decode([i]) for i in text.label_ids], list(text.label_ids), part.clone())
        for text, part in zip(texts, parts, strict=True)
    ]
