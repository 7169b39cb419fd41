"""What judges behind an HTTP endpoint have in common: the key, and what an HTTP error means."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import NoReturn

from promptecho.config.judges import JudgeSection
from promptecho.judges.errors import JudgeBusyError, JudgeError
from promptecho.judges.prepare import PROVIDER_ENDPOINTS, normal_endpoint
from promptecho.judges.registry import judge_name

KEY_VARIABLES = {"gemini": "GEMINI_API_KEY", "openai": "OPENAI_API_KEY"}
BUSY = (408, 409, 425, 429)  # and all from 500 on
# What OpenAI, Azure and DashScope call an input that their filters refuse; it is one question's trouble.
FILTERED = ("content_filter", "content_policy_violation", "moderation_blocked", "data_inspection_failed")
NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "Arrearage")
SHORTEST_SCRUBBED = 8  # a made-up key such as `none` is no secret, and a word of many texts


class Endpoint:
    """Address and key of a judge. The key shows in no repr, text or pickle of it.

    Raises:
        JudgeError: the provider's own endpoint needs a key, and its variable is not set; or what it holds cannot be a
            key.
    """

    def __init__(self, settings: JudgeSection):
        self.name, self.model = judge_name(settings), settings.model
        self.url = normal_endpoint(settings) or PROVIDER_ENDPOINTS[settings.kind]
        self.variable = settings.api_key_env or KEY_VARIABLES[settings.kind]
        self._key = os.environ.get(self.variable, "").strip()
        if not self._key and normal_endpoint(settings) is None:
            raise JudgeError(f"judge {self.name}: no key; set the environment variable {self.variable}")
        # No HTTP header holds such a key; the clients' own errors about it would quote it, or blame the endpoint.
        if not self._key.isascii() or not self._key.isprintable() or " " in self._key:
            raise JudgeError(
                f"judge {self.name}: {self.variable} holds spaces, line breaks or letters no key has; copy it again"
            )

    def __repr__(self) -> str:
        return f"Endpoint({self.name})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an endpoint holds a key and is not pickled; make it anew from the settings")

    @property
    def key(self) -> str:
        """For the client alone; empty where none is set."""
        return self._key

    def scrub(self, text: str) -> str:
        """`text` without the key, should a server have repeated it."""
        return text.replace(self._key, "***") if len(self._key) >= SHORTEST_SCRUBBED else text

    def busy(self, what: str, *, retry_after: float | None = None, maybe_billed: bool = False) -> JudgeBusyError:
        return JudgeBusyError(self.scrub(what), retry_after=retry_after, maybe_billed=maybe_billed)

    def status_error(self, status: int, message: str, code: str = "", retry_after: float | None = None) -> JudgeError:
        """What an HTTP status that is no success means: a JudgeBusyError, or the end."""
        told = f" ({self._one_line(message)})" if message.strip() else ""
        at = f"judge {self.name}: HTTP {status}"
        if code in NO_CREDIT:
            return JudgeError(f"{at}: the account has no credit left{told}; see to it, then rerun")
        if status in BUSY or status >= 500:
            return self.busy(f"HTTP {status}: the endpoint is busy or broken{told}", retry_after=retry_after)
        if status == 401:
            which = f"the key in {self.variable} is refused" if self._key else f"it wants a key; set {self.variable}"
            return JudgeError(f"{at}: {which}")
        if status == 403:
            return JudgeError(f"{at}: the key in {self.variable} may not do this{told}")
        if status == 404:
            return JudgeError(f"{at}: no model {self.model} at {self.url}{told}; correct model or endpoint")
        return JudgeError(f"{at}: the request is refused{told}; correct the judge's settings")

    def _one_line(self, message: str) -> str:
        return self.scrub(" ".join(message.split()))[:200]


def retry_after(headers: Mapping[str, str] | None) -> float | None:
    """Seconds to wait that the headers ask for, given as seconds or as a date; None where they don't."""
    value = (headers or {}).get("retry-after", "").strip()
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def missing_package(settings: JudgeSection, package: str) -> JudgeError:
    return JudgeError(
        f"judge {judge_name(settings)}: kind {settings.kind} needs the package {package}; pip install {package}"
    )
