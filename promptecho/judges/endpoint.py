"""What judges behind an HTTP endpoint have in common: the key, and what an HTTP error means."""

from __future__ import annotations

import os
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import NoReturn, TypeVar
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from promptecho.config.judge_kinds import judge_kind
from promptecho.config.judges import JudgeSection
from promptecho.judges.base import Reply
from promptecho.judges.errors import (
    JudgeBusyError,
    JudgeError,
    JudgeForbiddenError,
    JudgePackageError,
    JudgeRejectedError,
)
from promptecho.judges.keys import normal_endpoint
from promptecho.judges.names import MessageNames, judge_name

AZURE_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")
BUSY = (408, 409, 425, 429)  # and all from 500 on
REJECTED = (400, 413, 415, 422)  # about one request
# What OpenAI, Azure and DashScope call an input that their filters refuse; it is one question's trouble. Without
# underscores and in lower case, since they spell codes in several ways.
FILTERED = (
    "contentfilter", "contentpolicyviolation", "moderationblocked", "datainspectionfailed", "invalidprompt",
    "responsibleaipolicyviolation", "safetyviolation", "cyberpolicyviolation",
)  # fmt: skip
FILTER_WORDS = re.compile(
    r"content management policy|content[ _]filter|content polic|usage polic|responsible ai|"
    r"safety (?:system|filter|polic)|inappropriate content|data ?inspection|\bRAI\b",
    re.IGNORECASE,
)
NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "Arrearage")
NO_LIST = (404, 405, 501)  # of models, where an endpoint of one's own has none
Answered = TypeVar("Answered")
SHORTEST_SCRUBBED = 8  # a made-up key such as `none` is no secret, and a word of many texts


class Endpoint:
    """Address and key of a judge; `wording`: what messages call it. The key shows in no repr, text or pickle of it.

    Raises:
        JudgeError: the provider's own endpoint needs a key, and its variable is not set; or what it holds cannot be a
            key.
    """

    def __init__(self, settings: JudgeSection, wording: MessageNames | None = None):
        self.name, self.model = judge_name(settings), settings.model
        self.wording = wording or MessageNames(f"judge {self.name}")
        kind = judge_kind(settings.kind)
        parts = urlsplit(normal_endpoint(settings) or kind.provider)
        self.host, self.url = parts.netloc, urlunsplit(parts._replace(query="")).rstrip("/")
        self.query = dict(parse_qsl(parts.query))  # api-version, nothing else
        # Azure takes its key in a header of its own.
        of_azure = bool(self.query or (parts.hostname or "").endswith(AZURE_HOSTS))
        self.azure = bool(kind.azure_key_variable) and of_azure
        self.variable = settings.api_key_env or (kind.azure_key_variable if self.azure else kind.key_variable)
        self._key = os.environ.get(self.variable, "").strip() if self.variable else ""
        if not self._key and kind.key_variable and normal_endpoint(settings) is None:
            raise JudgeError(f"{self.wording.who}: no key; set the environment variable {self.variable}")
        # No HTTP header holds such a key; the clients' own errors about it would quote it, or blame the endpoint.
        if not self._key.isascii() or not self._key.isprintable() or " " in self._key:
            raise JudgeError(
                f"{self.wording.who}: {self.variable} holds spaces, line breaks or letters no key has; copy it again"
            )

    @property
    def is_here(self) -> bool:
        """Whether its address is this machine's own."""
        return urlsplit(self.url).hostname in ("localhost", "127.0.0.1", "::1")

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

    def busy(
        self, what: str, *, retry_after: float | None = None, maybe_billed: bool = False, throttled: bool = False,
        by_status: bool = False,
    ) -> JudgeBusyError:  # fmt: skip
        return JudgeBusyError(
            self.scrub(what), retry_after=retry_after, maybe_billed=maybe_billed, throttled=throttled,
            by_status=by_status,
        )  # fmt: skip

    def bounded(self, seconds: float, call: Callable[[], Answered | JudgeError]) -> Answered:
        """The reply of one call, which takes `seconds` at most, all told: HTTP libraries bound each wait for a byte
        alone, and the search for an address not at all.

        Raises:
            JudgeError: what the call made of it, or JudgeBusyError at the end of the time.
        """
        box: queue.SimpleQueue = queue.SimpleQueue()

        def run() -> None:
            try:
                box.put(call())
            except BaseException as error:  # raised again where it is waited for
                box.put(error)

        threading.Thread(target=run, daemon=True, name="judge-call").start()
        try:
            outcome = box.get(timeout=seconds)
        except queue.Empty:
            outcome = None
        if outcome is None:  # outside the handler, so that errors have no context
            outcome = self.time_out(seconds)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def time_out(self, seconds: float, *, sent: bool = True) -> JudgeBusyError:
        what = "no reply" if sent else "no connection"
        return self.busy(f"time-out: {what} within {seconds:g} s", maybe_billed=sent)

    def transport_error(self, error: BaseException, seconds: float) -> JudgeError | None:
        """What an HTTP library's error means, which holds the system's own in its chain; None: it is none of these."""
        chain, names = _chain(error), set()
        for one in chain:
            names |= {cls.__name__ for cls in type(one).__mro__}
        if not names & {"TransportError", "TimeoutException", "APIConnectionError"}:
            return None
        for one in chain:
            if isinstance(one, socket.gaierror):
                return JudgeBusyError(f"DNS: {self.host} has no address ({one.strerror or one})", unknown_host=True)
            if isinstance(one, ssl.SSLCertVerificationError):
                why = getattr(one, "verify_message", "") or str(one)
                return JudgeError(
                    f"{self.wording.who}: TLS: the certificate of {self.host} is not trusted ({why}); correct the "
                    "endpoint, or name its authority in the environment variable SSL_CERT_FILE"
                )
            if isinstance(one, ssl.SSLError):
                return self.busy(f"TLS: {self.host}: {one.reason or type(one).__name__}")
            if isinstance(one, ConnectionRefusedError):
                return self.busy(f"connection refused: nobody listens at {self.host}")
        if "TimeoutException" in names or "APITimeoutError" in names:
            return self.time_out(seconds, sent=not {"ConnectTimeout", "PoolTimeout"} & names)
        name = next((type(one).__name__ for one in chain if type(one).__name__ != "APIConnectionError"), "")
        if "ConnectError" in names:
            told = next((one.strerror for one in chain if isinstance(one, OSError) and one.strerror), name)
            return self.busy(f"no connection: {self.host}: {told}")
        return self.busy(f"connection lost: {name}", maybe_billed=True)

    def filtered(self, status: int, message: str, codes: Sequence[str]) -> Reply | None:
        """A request that the provider's filter refused, which is an answer to this question."""
        if status not in (400, 403, 422):
            return None
        code = next((code for code in codes if code.lower().replace("_", "").replace("-", "") in FILTERED), None)
        if code is None and (status == 403 or not FILTER_WORDS.search(message)):
            return None
        return Reply("", refusal=f"input filtered ({code or self._one_line(message)})")

    def status_error(self, status: int, message: str, code: str = "", retry_after: float | None = None) -> JudgeError:
        """What an HTTP status that is no success means: a JudgeBusyError, or the end."""
        told = f" ({self._one_line(message)})" if message.strip() else ""
        at = f"{self.wording.who}: HTTP {status}"
        if code in NO_CREDIT or status == 402:
            return JudgeError(f"{at}: the account has no credit left{told}; see to it, then rerun")
        if status in BUSY or status >= 500:
            throttled = status == 429 or retry_after is not None
            what = "too many requests" if status == 429 else "the endpoint is busy or broken"
            return self.busy(
                f"HTTP {status}: {what}{told}", retry_after=retry_after, throttled=throttled, by_status=True
            )
        if 300 <= status < 400:
            return JudgeError(f"{at}: {self.host} sends the request elsewhere, where no key goes; correct the endpoint")
        if status == 401:
            which = f"the key in {self.variable} is refused" if self._key else f"it wants a key; set {self.variable}"
            return JudgeError(f"{at}: {which}")
        if status == 403:
            return JudgeForbiddenError(f"{at}: the key in {self.variable} may not do this{told}")
        if status == 404:
            return JudgeError(f"{at}: no model {self.model} at {self.url}{told}; correct model or endpoint")
        if status in REJECTED:
            return JudgeRejectedError(f"HTTP {status}: the request is refused{told}")
        return JudgeError(f"{at}: the request is refused{told}; correct {self.wording.settings}")

    def _one_line(self, message: str) -> str:
        if re.match(r"\s*<(?:!doctype|html|\?xml)", message, re.IGNORECASE):  # a proxy's page
            message = re.sub(r"<[^>]*>", " ", message)
        return self.scrub(" ".join(message.split()))[:200]


def _chain(error: BaseException) -> list[BaseException]:
    """An error and what it came from, the outermost first."""
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in found:
        found.append(one)
        one = one.__cause__ or one.__context__
    return found


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


def missing_package(settings: JudgeSection, package: str) -> JudgePackageError:
    return JudgePackageError(
        f"judge {judge_name(settings)}: kind {settings.kind} needs the package {package}; pip install {package}"
    )
