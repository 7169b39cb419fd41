"""Calls to a server that gives rewards: JSON there and back, bounded waiting, errors in one line."""

from __future__ import annotations

import http.client
import json
import os
import queue
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from promptecho.errors import RewardError
from promptecho.judges.patience import Backoff
from promptecho.rewards.http.options import ServerSection

BACKOFF = Backoff(initial=0.5, longest=30.0)
BUSY = (408, 425, 429)  # and all from 500 on
POLL_S = 0.2
LARGEST = 64 * 2**20  # bytes of an answer
SHORTEST_SCRUBBED = 8  # a made-up key such as `none` is no secret, and a word of many texts
Lot = TypeVar("Lot")
Given = TypeVar("Given")


class _BusyError(Exception):
    """This call failed, and the next may not."""


class _StayHere(urllib.request.HTTPRedirectHandler):
    """A key, and images, go to no other host than the one that was named."""

    def redirect_request(self, *_: Any) -> None:
        return None


class RewardServer:
    """A server by its settings. Proxies come from the environment (`http_proxy`, `no_proxy`), as everywhere. The key
    shows in no repr, text or pickle of it.

    Args:
        who: what it is called in errors, the reward.

    Raises:
        RewardError: no endpoint, or its key's variable is not set or holds no key.
    """

    def __init__(self, who: str, settings: ServerSection):
        self.who, self.settings = who, settings
        for key, problem in settings.problems.items():
            raise RewardError(f"reward {who}: {who}.{key}: {problem}")
        self.url = str(settings.endpoint).rstrip("/")
        variable = settings.api_key_env
        self._key = os.environ.get(variable, "").strip() if variable else ""
        if variable and not self._key:
            raise RewardError(f"reward {who}: no key; set the environment variable {variable}")
        if not self._key.isascii() or not self._key.isprintable() or " " in self._key:
            raise RewardError(f"reward {who}: {variable} holds spaces, line breaks or letters that no key has")
        self._opener = urllib.request.build_opener(_StayHere())
        self._given_up = threading.Event()  # set while nobody waits for answers

    def __repr__(self) -> str:
        return f"RewardServer({self.who}, {self.url})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a server's client holds a key and is not pickled; make it anew from the settings")

    def ask_all(self, lots: Sequence[Lot], ask: Callable[[Lot], Given]) -> list[Given]:
        """`ask` of each lot, several at a time, in their order; the first error ends all."""
        self._given_up.clear()
        pool = ThreadPoolExecutor(self.settings.concurrency, thread_name_prefix="reward-server")
        try:
            return list(pool.map(ask, lots))
        finally:
            self._given_up.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer to `body` posted to `path`, or without one to a GET. A server that fails or is away is asked
        again, with growing pauses.

        Raises:
            RewardError: it refuses, answers what is no JSON object, or is away for `outage_s`. Of one item of the
                request, where it says which ("item"), with its index.
        """
        started, failures = time.monotonic(), 0
        while True:
            try:
                return self.once(path, body, self.settings.timeout_s)
            except _BusyError as error:
                failures, told = failures + 1, str(error)
            pause = BACKOFF.pause(f"{self.url}{path}", failures)
            if time.monotonic() - started + pause > self.settings.outage_s:
                times = f"{failures} times" if failures > 1 else "once"
                raise RewardError(
                    f"reward {self.who}: {self.url}: {told} (asked {times} in {self.who}.outage_s "
                    f"{self.settings.outage_s:g} s); start the server, or correct {self.who}.endpoint"
                )
            if self._given_up.wait(pause):
                raise RewardError(f"reward {self.who}: {self.url}: {told}")

    def probe(self, path: str, seconds: float) -> dict[str, Any]:
        """The answer to one GET within `seconds`.

        Raises:
            RewardError: as `call`, or the server does not answer now.
        """
        try:
            return self.once(path, None, seconds)
        except _BusyError as error:
            told = str(error)
        raise RewardError(f"reward {self.who}: {self.url}: {told}")

    def once(self, path: str, body: dict[str, Any] | None, seconds: float) -> dict[str, Any]:
        box: queue.SimpleQueue = queue.SimpleQueue()

        def run() -> None:  # the library bounds each wait for a byte alone, and looking up a name not at all
            try:
                box.put(self._exchange(path, body, seconds))
            except Exception as error:
                box.put(error)

        threading.Thread(target=run, daemon=True, name="reward-call").start()
        outcome, end = None, time.monotonic() + seconds
        while outcome is None:
            try:
                outcome = box.get(timeout=max(0.0, min(POLL_S, end - time.monotonic())))
            except queue.Empty:
                if time.monotonic() >= end or self._given_up.is_set():
                    outcome = _BusyError(f"no answer within {seconds:g} s")
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _exchange(self, path: str, body: dict[str, Any] | None, seconds: float) -> dict[str, Any]:
        headers = {"Accept": "application/json", "User-Agent": "promptecho"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        request = urllib.request.Request(f"{self.url}{path}", data=data, headers=headers)
        try:
            with self._opener.open(request, timeout=seconds) as response:
                raw = response.read(LARGEST + 1)
        except urllib.error.HTTPError as error:
            raise self._refused(error.code, _body(error)) from None
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None
        if len(raw) > LARGEST:
            raise self.wrong(f"its answer is longer than {LARGEST // 2**20} MiB")
        return self._parsed(raw)

    def _parsed(self, raw: bytes) -> dict[str, Any]:
        def no_number(text: str) -> NoReturn:
            raise self.wrong(f"its answer holds {text}, which is no JSON; null stands for what is missing")

        try:
            answer = json.loads(raw, parse_constant=no_number)
        except (ValueError, RecursionError):
            raise self.wrong(f"its answer is no JSON ({self._one_line(raw)!r})") from None
        if not isinstance(answer, dict):
            raise self.wrong(f"its answer is a JSON {type(answer).__name__} and no object")
        return answer

    def wrong(self, what: str) -> RewardError:
        """The error of a server that answers otherwise than it must."""
        return RewardError(f"reward {self.who}: {self.url}: {what}; see docs/rewards.md for what a server answers")

    def _refused(self, status: int, raw: bytes) -> Exception:
        """What an HTTP status that is no success means."""
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        body = body if isinstance(body, dict) else {}
        said = body.get("error") or body.get("message") or body.get("detail")
        said = said.get("message") if isinstance(said, dict) else said
        told = self._one_line(str(said).encode() if said else raw)
        told = f" ({told})" if told else ""
        at = f"reward {self.who}: {self.url}: HTTP {status}"
        if status in BUSY or status >= 500:
            return _BusyError(f"HTTP {status}: it is busy or broken{told}")
        if 300 <= status < 400:
            return RewardError(f"{at}: sends the request elsewhere, where no key goes; correct {self.who}.endpoint")
        if status in (401, 403):
            variable = self.settings.api_key_env
            which = f"refuses the key in {variable}" if variable else f"wants a key; set {self.who}.api_key_env"
            return RewardError(f"{at}: {which}{told}")
        if status in (404, 405):
            return RewardError(f"{at}: has nothing there{told}; correct {self.who}.endpoint")
        item = body.get("item")
        index = item if type(item) is int and item >= 0 else None
        return RewardError(f"{at}: refuses the request{told}", index)

    def _unreachable(self, error: BaseException) -> Exception:
        host = urlsplit(self.url).netloc
        reason = getattr(error, "reason", error)
        if isinstance(reason, socket.gaierror):
            return _BusyError(f"DNS: {host} has no address ({reason.strerror or reason})")
        if isinstance(reason, ssl.SSLCertVerificationError):
            return RewardError(
                f"reward {self.who}: TLS: the certificate of {host} is not trusted ({reason.verify_message}); correct "
                f"{self.who}.endpoint, or name its authority in the environment variable SSL_CERT_FILE"
            )
        if isinstance(reason, ConnectionRefusedError):
            return _BusyError(f"nobody listens at {host}")
        if isinstance(reason, TimeoutError):
            return _BusyError(f"no answer within {self.settings.timeout_s:g} s")
        return _BusyError(f"connection lost ({self._one_line(str(reason).encode()) or type(reason).__name__})")

    def _one_line(self, raw: bytes) -> str:
        text = " ".join(raw.decode(errors="replace").split())
        return (text.replace(self._key, "***") if len(self._key) >= SHORTEST_SCRUBBED else text)[:200]


def _body(error: urllib.error.HTTPError) -> bytes:
    """The beginning of what came with an error's status; nothing where it breaks off."""
    try:
        with error:
            return error.read(4096)
    except (OSError, http.client.HTTPException):
        return b""
