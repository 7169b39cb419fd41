"""Inputs of a vision-language model through its own chat template: prompts, and prompts with a label as answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from promptecho.errors import DataError, ModelError
from promptecho.video import frames_of
from promptecho.vlm.model import Vlm
from promptecho.vlm.processor import takes_device


@dataclass(frozen=True)
class LabelledText:
    """A rendered conversation that ends with the label; its last `len(label_ids)` tokens are the label's."""

    text: str
    label_ids: list[int]


def render_prompt(vlm: Vlm, query: str, answer: str | None = None, *, n_images: int = 1, system: str = "") -> str:
    """Render the user turn [`n_images` images, `query`], and either the opening of the answer or the whole answer."""
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "image"}] * n_images + [{"type": "text", "text": query}]}
    ]
    if system:
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
    if answer is not None:
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    try:
        return vlm.processor.apply_chat_template(messages, add_generation_prompt=answer is None, tokenize=False)
    except Exception as error:  # jinja errors have no common base with the library's own ValueErrors
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{vlm.path}: its chat template fails on an image and a question ({reason})") from error


def label_text(
    vlm: Vlm, query: str, label: str, *, name: str, include_eos: bool = False, n_images: int = 1
) -> LabelledText:
    """Render the conversation up to the end of `label` and find the label's tokens in it.

    The label is looked for right behind the generation prompt (white space of the template between the two is
    allowed). Its tokens are those that follow the prompt's tokens, which must be an exact prefix of the whole's:
    then no token mixes template and label. What the template puts after the label is left out; with
    `include_eos`, the token that ends an answer follows and counts as the label's last.

    Args:
        name: what to call the label in an error, for example its prompt id.
        n_images: how many images the user's turn has.

    Raises:
        DataError: the label is empty, holds control tokens, or its first token merges with the template.
        ModelError: the template changes the label, or has no end token.
    """
    tokenizer = vlm.tokenizer
    whole, opening, start, end = label_span(vlm, query, label, name=name, n_images=n_images)
    eos_ids: list[int] = []
    eos = ""
    if include_eos:
        endings = {tokenizer.convert_ids_to_tokens(i): i for i in vlm.eos_ids}
        eos = next((token for token in endings if token and whole.startswith(token, end)), "")
        if not eos:
            raise ModelError(f"{vlm.path}: its chat template puts no end token behind an answer; drop include_eos")
        eos_ids = [endings[eos]]

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=not opens_itself(vlm, whole)).input_ids

    ids = encode(whole[:end])
    for boundary in (start, opening):  # a white-space gap may be a token of its own, or part of the label's first
        prefix = encode(whole[:boundary])
        if ids[: len(prefix)] == prefix and len(ids) > len(prefix):
            return LabelledText(whole[:end] + eos, ids[len(prefix) :] + eos_ids)
    raise DataError(
        f"{name}: the first token of the label {label[:40]!r} merges with the chat template of {vlm.path}; "
        f"strip white space at its start"
    )


def label_span(vlm: Vlm, query: str, label: str, *, name: str, n_images: int = 1) -> tuple[str, int, int, int]:
    """The rendered conversation with `label` as its answer; in it the ends of the generation prompt, of what the
    template puts behind that, and of the label.

    Raises:
        DataError: the label is empty or holds control tokens.
        ModelError: the template changes the label.
    """
    if not label.strip():
        raise DataError(f"{name}: the label is empty; remove the prompt or give it a text")
    check_plain(vlm, label, f"{name}: the label")
    prompt = render_prompt(vlm, query, n_images=n_images)
    whole = render_prompt(vlm, query, label, n_images=n_images)
    start = whole.find(label, len(prompt))
    if not whole.startswith(prompt) or start < 0 or whole[len(prompt) : start].strip():
        raise ModelError(
            f"{name}: the chat template of {vlm.path} does not give the label back behind its generation prompt "
            f"(label {label[:40]!r}); strip white space at the label's ends, or use a model without such a template"
        )
    return whole, len(prompt), start, start + len(label)


def special_tokens(vlm: Vlm) -> list[str]:
    """The control tokens of the tokenizer: those that a plain text must not contain."""
    return [token.content for token in vlm.tokenizer.added_tokens_decoder.values() if token.special]


def check_plain(vlm: Vlm, text: str, what: str) -> None:
    """Refuse a text that holds a control token; the error begins with `what`.

    Raises:
        DataError: it does.
    """
    for token in special_tokens(vlm):
        if token in text:
            raise DataError(f"{what} contains the control token {token!r}; remove it from the text")


def opens_itself(vlm: Vlm, text: str) -> bool:
    """Whether the rendered text brings its own beginning-of-sequence token (or the tokenizer has none)."""
    bos = vlm.tokenizer.bos_token
    return bos is None or text.startswith(bos)


def batch_inputs(
    vlm: Vlm, images: Sequence[Image.Image | list[Image.Image]], texts: Sequence[str], *, padding_side: str
) -> dict[str, torch.Tensor]:
    """Tokenize and pad `texts[B]` with one image each, a list of images each, or the frames of a video; what the
    model's forward takes, on its device.

    Floating-point inputs get the model's dtype.

    Raises:
        DataError: the processor refuses an image (an aspect ratio above 200, for example).
    """
    return dict(processed(vlm, images, texts, padding_side=padding_side).to(vlm.device, dtype=vlm.model.dtype))


def processed(
    vlm: Vlm, images: Sequence[Image.Image | list[Image.Image]], texts: Sequence[str], *, padding_side: str
) -> Any:
    """As `batch_inputs`, but where the processor leaves it: on the host, in float32. An image's patches may be on the
    model's device already."""
    lists = [image if isinstance(image, list) else frames_of(image) for image in images]
    try:
        return vlm.processor(
            images=lists if any(lists) else None,
            text=list(texts),
            add_special_tokens=not opens_itself(vlm, texts[0]),
            padding=True,
            padding_side=padding_side,
            return_tensors="pt",
            **({"device": vlm.device} if any(lists) and takes_device(vlm.processor) else {}),
        )
    except ValueError as error:
        sizes = ", ".join(sorted({f"{image.width}x{image.height}" for row in lists for image in row}))
        raise DataError(f"{vlm.path}: its processor refuses images of {sizes} pixels ({error})") from error
