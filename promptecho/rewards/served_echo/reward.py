"""PromptEcho by a server that gives log-probabilities of a prompt's tokens (vLLM's `prompt_logprobs`)."""

from __future__ import annotations

import math
from typing import Any

from PIL import Image

from promptecho.errors import RewardError
from promptecho.rewards.base import Details, RewardContext, image_name, not_finite
from promptecho.rewards.echo.reward import DEFAULT_QUERY
from promptecho.rewards.echo.words import token_details
from promptecho.rewards.http.reward import png_base64
from promptecho.rewards.http.server import RewardServer
from promptecho.rewards.served_echo.options import ServedEchoSection
from promptecho.vlm.inputs import LabelledText, label_text
from promptecho.vlm.model import Vlm, load_outline

CLAMPED = -9999.0  # what vLLM sends for minus infinity, which JSON has not
ROUNDING = 1e-3  # nats above 0 that rounding may make of a certain token


class ServedEchoReward:
    """Mean log-probability per token of the prompt, given as the answer to `query` on the image: the number of
    `EchoReward`, computed by the server. One request for each image.

    Args:
        outline: tokenizer and chat template of the server's model.
    """

    def __init__(self, settings: ServedEchoSection, outline: Vlm | None = None, *, query: str = DEFAULT_QUERY):
        self.server = RewardServer("served_echo", settings)
        self.settings, self.query = settings, query
        self.outline = outline or load_outline(str(settings.processor), revision=settings.revision)

    def __call__(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> list[float]:
        """Rewards of `images[N]` for `prompts[N]`, in nats per token (at most 0).

        Raises:
            RewardError: a reward is not finite, or the server is away, refuses, or answers otherwise than it must.
            DataError: a prompt is empty, or holds control tokens; names the prompt id.
        """
        return [math.fsum(values) / len(values) for _, values in self.log_probs(images, prompts, prompt_ids)]

    def details(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> Details:
        """As `__call__`, token by token."""
        found = self.log_probs(images, prompts, prompt_ids)
        return token_details([([self.outline.tokenizer.decode([i]) for i in ids], values) for ids, values in found])

    def log_probs(
        self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]
    ) -> list[tuple[list[int], list[float]]]:
        """(ids, log-probabilities [nats]) of the tokens of `prompts[N]`, given `images[N]`."""
        known: dict[str, LabelledText] = {}
        for prompt, prompt_id in zip(prompts, prompt_ids, strict=True):
            if prompt not in known:
                known[prompt] = label_text(self.outline, self.query, prompt.strip(), name=f"prompt {prompt_id}")

        def ask(index: int) -> tuple[list[int], list[float]]:
            name, image, ids = f"prompt {prompt_ids[index]}", images[index], known[prompts[index]].label_ids
            try:
                answer = self.server.call("/chat/completions", self._body(image, prompts[index]))
                values = self._of_label(answer, ids)
            except RewardError as error:
                raise RewardError(f"{error} [{name}, image {image_name(image, index)}]") from None
            if bad := sum(not CLAMPED < value <= ROUNDING for value in values):
                raise not_finite(name, image, index, f"{bad} of {len(ids)} label tokens")
            return ids, values

        return self.server.ask_all(range(len(images)), ask)

    def _body(self, image: Image.Image, prompt: str) -> dict[str, Any]:
        picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png_base64(image)}"}}
        return {
            "model": self.settings.model,
            "messages": [
                {"role": "user", "content": [picture, {"type": "text", "text": self.query}]},
                {"role": "assistant", "content": prompt.strip()},
            ],
            "add_generation_prompt": False,
            "continue_final_message": True,  # the conversation ends with the label
            "prompt_logprobs": 0,  # of each token itself, and of no other
            "max_tokens": 1,  # no server writes less
            "temperature": 0,
        }

    def _of_label(self, answer: dict[str, Any], ids: list[int]) -> list[float]:
        """Log-probabilities of the last tokens of the server's prompt, which must be the label's."""
        rows = answer.get("prompt_logprobs")
        if not isinstance(rows, list):
            raise self.server.wrong("its answer has no prompt_logprobs, as vLLM's has")
        last = rows[len(rows) - len(ids) :] if len(rows) > len(ids) else []
        found = [[str(key) for key in row] if isinstance(row, dict) else [] for row in last]
        if [keys[:1] for keys in found] != [[str(one)] for one in ids]:
            tokens = self.outline.tokenizer
            theirs = tokens.decode([int(keys[0]) for keys in found if keys and keys[0].isdecimal()])
            raise self.server.wrong(
                f"its prompt ends with {theirs[-80:]!r}, and the label's tokens by {self.settings.processor} are "
                f"{tokens.decode(ids)[-80:]!r}: give the server the same model and chat template"
            )
        values: list[float] = []
        for row, keys in zip(last, found, strict=True):
            value = row[keys[0]].get("logprob") if isinstance(row[keys[0]], dict) else None
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise self.server.wrong("a token of its prompt_logprobs has no number `logprob`")
            try:
                values.append(float(value))
            except OverflowError:  # an integer of more than 308 digits
                raise self.server.wrong("a `logprob` of its prompt_logprobs is not finite") from None
        return values


def build(context: RewardContext) -> ServedEchoReward:
    """As a descriptor's `build`."""
    return ServedEchoReward(context.options or ServedEchoSection(), query=context.query)


def probe(settings: ServedEchoSection, seconds: float) -> str:
    """Who answers at the endpoint, for the doctor; its list of models is asked for once.

    Raises:
        RewardError: nobody, or the model is not listed.
    """
    server = RewardServer("served_echo", settings)
    listed = server.probe("/models", seconds).get("data")
    names = [str(one.get("id")) for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    if settings.model not in names:
        known = ", ".join(names) or "none"
        raise RewardError(f"reward served_echo: {server.url}: has no model {settings.model} (it lists: {known})")
    return f"{server.url} answers and has {settings.model}"
