"""How likely a vision-language model's answer begins as the right one does: one pass of the model a question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from promptecho.benchmarks.geneval2.prompts import PromptAtom
from promptecho.benchmarks.geneval2.rules import answer_probability, asked, first_tokens, spellings
from promptecho.benchmarks.local_vlm import LocalVlm
from promptecho.errors import DataError
from promptecho.vlm import Vlm
from promptecho.vlm.inputs import processed, render_prompt
from promptecho.vlm.log_probs import log_probs_at

if TYPE_CHECKING:
    from PIL import Image


@torch.no_grad()
def first_token_probabilities(
    vlm: Vlm, image: Image.Image, questions: Sequence[str], tokens: Sequence[Sequence[int]]
) -> list[list[float]]:
    """How likely the answer to each of `questions[N]` about the image begins with each of `tokens[N]`.

    All questions are one batch, so that a result depends on nothing but the image and its questions. Padding is on the
    right, and the softmax in float32, as for labels.

    Raises:
        DataError: image and question exceed the model's context, or the processor refuses the image.
    """
    texts = [render_prompt(vlm, question) for question in questions]
    batch = processed(vlm, [image] * len(texts), texts, padding_side="right")
    lengths = batch["attention_mask"].sum(dim=1)  # [N], on the host
    if (longest := int(lengths.max())) > vlm.context_length:
        raise DataError(
            f"{vlm.path}: image and question of {longest} tokens exceed its context of {vlm.context_length}; take "
            "smaller images"
        )
    ends = torch.arange(len(texts)) * batch["input_ids"].shape[1] + lengths - 1  # before the first token of the answer
    counts = [len(some) for some in tokens]
    targets = torch.tensor([token for some in tokens for token in some])
    found = log_probs_at(vlm, batch, ends.repeat_interleave(torch.tensor(counts)), targets)
    return [part.tolist() for part in found.exp().cpu().split(counts)]


class FirstTokenJudge:
    """`AtomJudge` by a model's probabilities (`LocalVlm`).

    Args:
        model: a folder, a hub id, or the name of a model that ships with the project.

    Raises:
        ModelError: the model is not available.
    """

    def __init__(self, model: str, device: str = "auto"):
        model_here = LocalVlm(model, device)
        self._vlm, self.name = model_here.vlm, model_here.name

    def probabilities(self, image: Image.Image, atoms: Sequence[PromptAtom]) -> list[float]:
        """Raises:
        DataError: as `first_token_probabilities`.
        """
        tokens = [first_tokens(spellings(atom.question, atom.answer), self._encode) for atom in atoms]
        found = first_token_probabilities(self._vlm, image, [asked(atom.question) for atom in atoms], tokens)
        return [answer_probability(some) for some in found]

    def _encode(self, text: str) -> list[int]:
        return self._vlm.tokenizer.encode(text, add_special_tokens=False)
