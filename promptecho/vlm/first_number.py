"""How likely a model is to begin its answer with each number from 0 to 10: one pass, nothing is written.

Most tokenizers write 10 as two tokens, of which the first is that of 1. The answer that is given to the model is
therefore "10": the logits before its 1 are those of all digits, and those behind it say how much of the 1 goes on to
10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os.path import commonprefix

import torch
from PIL import Image

from promptecho.errors import ModelError
from promptecho.vlm.inputs import LabelledText, label_text, processed
from promptecho.vlm.log_probs import label_starts, log_probs_at
from promptecho.vlm.model import Vlm

TEN = 10


@dataclass(frozen=True)
class NumberTokens:
    """Tokens `ids` of the answer "10" with what it begins with, which are the first `opening` of them.

    `digits` [10] may follow these, and so may `ten`; where 10 is two tokens, `ten` follows that of 1 (`ten_is_two`).
    """

    ids: list[int]
    opening: int
    digits: list[int]
    ten: int
    ten_is_two: bool


def number_tokens(vlm: Vlm, query: str, opening: str = "") -> NumberTokens:
    """How this model writes numbers behind `opening` at the start of its answer.

    Raises:
        ModelError: a digit is not one token of its own there.
    """
    ids = [label_text(vlm, query, f"{opening}{n}", name=f"the answer {opening}{n}").label_ids for n in range(TEN + 1)]
    digits, ten = ids[:TEN], ids[TEN]
    n = len(commonprefix(digits))
    two = ten[n:-1] == digits[1][n:] and len(ten) == n + 2
    last = [one[-1] for one in digits]
    shared = len({*last}) < TEN or (not two and ten[-1] in last)  # <unk>, for example
    whole = all(len(one) == n + 1 for one in digits) and ten[:n] == digits[0][:n] and (two or len(ten) == n + 1)
    if shared or not whole:
        raise ModelError(
            f"{vlm.path}: its tokenizer does not write each digit as one token of its own behind the opening "
            f"{opening!r}; choose another opening or another VLM"
        )
    return NumberTokens(ten, n, last, ten[-1], two)


@torch.no_grad()
def first_number_log_probs(
    vlm: Vlm, images: Sequence[Image.Image], queries: Sequence[str], *, opening: str = "", batch_size: int,
    names: Sequence[str],
) -> torch.Tensor:  # fmt: skip
    """log p(the answer to `queries[N]` on `images[N]` goes on with n behind `opening`) for n from 0 to 10: [N, 11] in
    float64 on the CPU.

    The probability of 1 is that of its token less that of 10. What a number goes on with is not looked at otherwise:
    7 is also 7.5 or 7/10. Results don't depend on the batch (float32: to 1e-5).

    Args:
        names: what to call each in an error, for example "prompt 17".

    Raises:
        DataError: a query does not fit into the context.
        ModelError: a digit is not one token of the model.
    """
    found = torch.zeros((len(images), TEN + 1), dtype=torch.float64)
    if not len(images):
        return found
    tokens = number_tokens(vlm, queries[0], opening)
    known: dict[str, LabelledText] = {}
    for query, name in zip(queries, names, strict=True):
        if query not in known:
            known[query] = label_text(vlm, query, f"{opening}{TEN}", name=name)
            if known[query].label_ids != tokens.ids:
                raise ModelError(f"{vlm.path}: how it writes {opening}{TEN} depends on the question ({name})")
    texts = [known[query] for query in queries]
    order = sorted(range(len(texts)), key=lambda index: len(texts[index].text))  # less padding
    parts = []
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        parts.append(
            _batch(vlm, tokens, [images[i] for i in chosen], [texts[i] for i in chosen], [names[i] for i in chosen])
        )
    # One copy at the end, as in `label_log_probs`.
    found[order] = torch.cat([part.view(-1, TEN + 1) for part in parts]).cpu().double()
    if tokens.ten_is_two:
        one, more = found[:, 1].clone(), found[:, TEN].clone()
        found[:, TEN] = one + more
        found[:, 1] = one + torch.log1p(-more.exp().clamp(max=1.0))
    return found


def _batch(
    vlm: Vlm, tokens: NumberTokens, images: list[Image.Image], texts: list[LabelledText], names: list[str]
) -> torch.Tensor:
    """Log-probabilities of the digits and of `tokens.ten`, one image after the other, where the model computes."""
    batch = processed(vlm, images, [text.text for text in texts], padding_side="right")
    behind = [tokens.opening] * TEN + [tokens.opening + tokens.ten_is_two]
    asked = "the prompt, or the template that asks for the number"
    starts = label_starts(vlm, batch, texts, names, what="answer", shorten=asked)
    places = torch.tensor([start + offset for start in starts for offset in behind])
    return log_probs_at(vlm, batch, places, torch.tensor([*tokens.digits, tokens.ten] * len(texts)))
