"""A reward that a server gives, by a small protocol of JSON over HTTP (docs/rewards.md says it in full)."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

from PIL import Image

from promptecho.errors import RewardError
from promptecho.rewards.base import RewardContext, image_name
from promptecho.rewards.http.options import HttpSection
from promptecho.rewards.http.server import RewardServer

PROTOCOL = 1
PATH = "/rewards"


def png_base64(image: Image.Image) -> str:
    """An image as base64 of a PNG, in RGB: the pixels are those that every reward sees."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG", compress_level=1)
    return base64.b64encode(buffer.getvalue()).decode()


class HttpReward:
    """What the server at `settings.endpoint` says of images; NaN where it says null."""

    may_be_missing = True

    def __init__(self, settings: HttpSection, *, batch_size: int = 16, seed: int = 0):
        self.settings, self.batch_size, self.seed = settings, batch_size, seed
        self.server = RewardServer("http", settings)

    def __call__(self, images: list[Image.Image], prompts: list[str], prompt_ids: list[str]) -> list[float]:
        """Rewards of `images[N]` for `prompts[N]`, `batch_size` in a request.

        Raises:
            RewardError: the server is away, refuses, or answers otherwise than it must; names address and fix.
        """
        items = [
            (image, image_name(image, index), prompt, prompt_id)
            for index, (image, prompt, prompt_id) in enumerate(zip(images, prompts, prompt_ids, strict=True))
        ]
        starts = range(0, len(items), self.batch_size)
        found = self.server.ask_all(starts, lambda start: self._ask(items[start : start + self.batch_size], start))
        return [value for lot in found for value in lot]

    def _ask(self, items: list[tuple[Image.Image, str, str, str]], start: int) -> list[float]:
        body = {
            "protocol": PROTOCOL,
            "seed": self.seed,
            "items": [
                {"prompt_id": prompt_id, "prompt": prompt, "name": name, "image": png_base64(image)}
                for image, name, prompt, prompt_id in items
            ],
        }
        try:
            answer = self.server.call(PATH, body)
        except RewardError as error:
            if error.index is None or error.index >= len(items):
                raise RewardError(str(error)) from None
            _, name, _, prompt_id = items[error.index]
            raise RewardError(f"{error} [prompt {prompt_id}, image {name}]", start + error.index) from None
        return self._read(answer, len(items))

    def _read(self, answer: dict[str, Any], n: int) -> list[float]:
        check_server(self.server, self.settings, answer)
        values = answer.get("rewards")
        if not isinstance(values, list):
            raise self.server.wrong("its answer has no list `rewards`")
        if len(values) != n:
            raise self.server.wrong(f"it gave {len(values)} rewards for {n} images")
        for value in values:
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
                raise self.server.wrong(f"a reward is {str(value)[:40]!r}, which is neither a number nor null")
            if value is not None and not _is_finite(value):
                raise self.server.wrong("a reward is not finite; null stands for one that is missing")
        return [math.nan if value is None else float(value) for value in values]


def _is_finite(value: float) -> bool:
    """Whether a float can hold it: JSON may name 1e999, and integers of any length."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def check_server(server: RewardServer, settings: HttpSection, answer: dict[str, Any]) -> None:
    """Whether an answer is of this protocol, and of the server that the settings name.

    Raises:
        RewardError: it is not.
    """
    if answer.get("protocol") != PROTOCOL:
        raise server.wrong(f"it speaks protocol {answer.get('protocol')!r}, and this version {PROTOCOL}")
    if settings.reward is not None and answer.get("reward") != settings.reward:
        raise RewardError(
            f"reward {server.who}: {server.url}: it calls itself {answer.get('reward')!r}, and {server.who}.reward is "
            f"{settings.reward!r}; correct one of them"
        )


def build(context: RewardContext) -> HttpReward:
    """As a descriptor's `build`."""
    return HttpReward(context.options or HttpSection(), batch_size=context.batch_size, seed=context.seed)


def probe(settings: HttpSection, seconds: float) -> str:
    """Who answers at the endpoint, for the doctor; asked once.

    Raises:
        RewardError: nobody, or somebody else.
    """
    server = RewardServer("http", settings)
    answer = server.probe(PATH, seconds)
    check_server(server, settings, answer)
    return f"{server.url} answers" + (f" as {answer['reward']}" if isinstance(answer.get("reward"), str) else "")
