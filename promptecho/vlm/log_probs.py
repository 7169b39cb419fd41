"""Log-probabilities of label tokens, teacher-forced as the answer to a query on an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from promptecho.cluster.device import on_device
from promptecho.errors import DataError, counted
from promptecho.video import frames_of
from promptecho.vlm.inputs import LabelledText, label_text, processed
from promptecho.vlm.label_pass import ROWS, can_stay_on_host, during, facts_of
from promptecho.vlm.model import Vlm


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
    """For each pair of `images[N]` and `labels[N]`: log p(label token | image, query, label tokens before it). The
    frames of a video are images of one turn, in their order.

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
    known: dict[tuple[str, int], LabelledText] = {}
    keys = [(label, len(frames_of(image))) for label, image in zip(labels, images, strict=True)]
    for (label, n), name in zip(keys, names, strict=True):
        if (label, n) not in known:
            known[label, n] = label_text(vlm, query, label, name=name, include_eos=include_eos, n_images=n)
    texts = [known[key] for key in keys]
    order = sorted(range(len(texts)), key=lambda index: len(texts[index].label_ids))  # less padding
    found = [torch.zeros(0)]
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        found.append(
            _batch_log_probs(vlm, [images[i] for i in chosen], [texts[i] for i in chosen], [names[i] for i in chosen])
        )
    # One copy at the end: until then a GPU works on one batch while the host prepares the next.
    parts = (
        torch.cat([part.to(found[-1].device) for part in found]).cpu().split([len(texts[i].label_ids) for i in order])
    )
    rows = dict(zip(order, parts, strict=True))
    tokens = {key: [vlm.tokenizer.decode([i]) for i in text.label_ids] for key, text in known.items()}
    return [
        TokenLogProbs(tokens[key], list(text.label_ids), rows[index].clone())
        for index, (key, text) in enumerate(zip(keys, texts, strict=True))
    ]


def _batch_log_probs(vlm: Vlm, images: list[Image.Image], texts: list[LabelledText], names: list[str]) -> torch.Tensor:
    """Log-probabilities of the labels' tokens, one label after the other, where the model computes."""
    batch = processed(vlm, images, [text.text for text in texts], padding_side="right")
    starts = label_starts(vlm, batch, texts, names)
    counts = [len(text.label_ids) for text in texts]
    places = torch.cat([torch.arange(first, first + count) for first, count in zip(starts, counts, strict=True)])
    return log_probs_at(vlm, batch, places, batch["input_ids"].flatten()[places + 1])


def label_starts(
    vlm: Vlm, batch: Any, texts: Sequence[LabelledText], names: Sequence[str], *, what: str = "label",
    shorten: str = "the label or the image",
) -> list[int]:  # fmt: skip
    """For each row of a processed batch that is padded on the right: the place, counted through the batch, whose logits
    predict the label's first token. `what` a label is called in errors, and what to `shorten`.

    Raises:
        DataError: a row exceeds the context, or does not end with its label.
    """
    input_ids, lengths = batch["input_ids"], batch["attention_mask"].sum(dim=1).tolist()  # [B, T], on the host
    starts = []
    for row, (text, length, name) in enumerate(zip(texts, lengths, names, strict=True)):
        count = len(text.label_ids)
        if length > vlm.context_length:
            raise DataError(
                f"{name}: the {what}'s {count} tokens and {length - count} of image and query exceed the context of "
                f"{vlm.path} ({vlm.context_length} tokens); shorten {shorten}"
            )
        if input_ids[row, length - count : length].tolist() != text.label_ids:
            raise DataError(f"{name}: the processor of {vlm.path} changes the {what}'s tokens; it cannot be scored")
        starts.append(row * input_ids.shape[1] + length - count - 1)
    return starts


def log_probs_at(vlm: Vlm, batch: Any, places: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """log p(`targets[n]`), in float32, as the token behind `places[n]` of a processed batch: one pass of the model.

    Args:
        places: counted through the batch, on the host, in increasing order; one may be there several times.
    """
    dtype, device = vlm.model.dtype, vlm.device
    if can_stay_on_host(vlm.model):
        facts, inputs = facts_of(vlm.model, batch, places, targets, device)
        inputs["pixel_values"] = on_device(inputs["pixel_values"].to(dtype), device)  # not every processor does it
        with during(vlm.model, facts):
            return vlm.model(**inputs, use_cache=False).logits
    keep = torch.zeros(batch["input_ids"].shape, dtype=torch.bool)
    rows, at = places.unique(return_inverse=True)
    keep.view(-1)[rows] = True
    keep, targets = keep.to(device), targets.to(device)
    logits = vlm.model(**batch.to(device, dtype=dtype), logits_to_keep=keep, use_cache=False).logits  # [rows, V]
    if len(rows) < len(places):
        logits = logits[at.to(device)]
    return torch.cat(
        [
            -F.cross_entropy(part.float(), target, reduction="none")
            for part, target in zip(logits.split(ROWS), targets.split(ROWS), strict=True)
        ]
    )
