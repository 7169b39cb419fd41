"""Answers of a vision-language model: greedy, or sampled with a seed per row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from promptecho.errors import DataError
from promptecho.vlm.model import Vlm


@dataclass(frozen=True)
class Completion:
    """What the model wrote: `text` without control tokens, `n_tokens` without the end token, stop | length."""

    text: str
    n_tokens: int
    finish_reason: str


class SeededSampling(LogitsProcessor):
    """Turns greedy decoding into sampling by inverse transform: one uniform number per row and step.

    `uniforms[B, max_new_tokens]` is all the randomness there is, so that a row's answer does not depend on who
    shares its batch. The chosen token gets score 0, all others -inf.
    """

    def __init__(self, uniforms: torch.Tensor, temperature: float):
        self.uniforms, self.temperature, self.step = uniforms, temperature, 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores[B, V]` -> scores of the same shape with one finite entry per row."""
        cumulated = (scores.double() / self.temperature).softmax(dim=-1).cumsum(dim=-1)
        target = self.uniforms[:, self.step, None].to(cumulated) * cumulated[:, -1:]
        self.step += 1
        # right=True: never a token of probability 0
        chosen = torch.searchsorted(cumulated, target, right=True).clamp_(max=scores.shape[-1] - 1)
        return torch.full_like(scores, float("-inf")).scatter_(1, chosen, 0.0)


@torch.no_grad()
def complete(
    vlm: Vlm, inputs: dict[str, torch.Tensor], names: Sequence[str], seeds: Sequence[int], *, max_new_tokens: int,
    temperature: float, repetition_penalty: float = 1.0,
) -> list[Completion]:  # fmt: skip
    """Continue the rows of `inputs[B]` (from `batch_inputs`, padded left); row i is sampled with `seeds[i]`, or
    greedily at temperature 0. `names` are for errors. `repetition_penalty` is that of transformers, 1 for none: it
    is on the tokens of the inputs, too.

    Raises:
        DataError: inputs and `max_new_tokens` exceed the model's context.
    """
    length = inputs["input_ids"].shape[1]
    if length + max_new_tokens > vlm.context_length:
        raise DataError(
            f"{vlm.path}: image and query of {length} tokens and {max_new_tokens} new ones exceed its context "
            f"of {vlm.context_length} (largest of {', '.join(names[:3])}, ...); lower max_new_tokens or image size"
        )
    processors = LogitsProcessorList()
    if temperature > 0:
        uniforms = [
            torch.rand(max_new_tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
        processors.append(SeededSampling(torch.stack(uniforms).to(vlm.device), temperature))
    pad = vlm.tokenizer.pad_token_id
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        repetition_penalty=repetition_penalty,
        use_cache=True,
        eos_token_id=list(vlm.eos_ids),
        pad_token_id=vlm.eos_ids[0] if pad is None else pad,
    )
    output = vlm.model.generate(**inputs, generation_config=config, logits_processor=processors)
    return [_answer(vlm, ids) for ids in output[:, length:].tolist()]


def _answer(vlm: Vlm, ids: list[int]) -> Completion:
    end = next((index for index, token in enumerate(ids) if token in vlm.eos_ids), None)
    written = ids[:end]
    # HDF5 texts end at a NUL; nobody misses it.
    text = vlm.tokenizer.decode(written, skip_special_tokens=True).replace("\0", "").strip()
    return Completion(text, len(written), "length" if end is None else "stop")
