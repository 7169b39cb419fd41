"""Whether the hub answers: asked once per process, and before a library asks it, which would try again for minutes."""

from __future__ import annotations

import functools
import http.client
import socket
import ssl
import threading
import urllib.error
import urllib.request

PATIENCE_S = 1.5


def endpoint() -> str:
    """The URL of the hub that huggingface_hub asks."""
    from huggingface_hub import constants

    return constants.ENDPOINT


def forbidden() -> bool:
    """Whether huggingface_hub itself may not ask (HF_HUB_OFFLINE in the environment)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def shown(url: str) -> str:
    """`url` without the name and password that it may hold."""
    scheme, separator, rest = url.partition("://")
    host, slash, path = (rest if separator else url).partition("/")
    return f"{scheme + separator if separator else ''}{host.rpartition('@')[2]}{slash}{path}"


@functools.cache
def unreachable(url: str) -> str | None:
    """Why the server at `url` gives no answer; None if it gives any answer, also a refusal."""
    found = ["no answer"]

    def ask() -> None:
        found[0] = _ask(url)

    # In a thread: looking a name up has no time-out.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return found[0] or None


def refusal(hub_id: str) -> str | None:
    """Why the hub would not give a model; None where it would, or does not tell. Everybody may read the description of
    a gated model, so that access is asked for besides (`auth-check`, which mirrors may not have)."""
    from huggingface_hub import get_token

    headers = {"User-Agent": "promptecho"}
    if token := get_token():
        headers["Authorization"] = f"Bearer {token}"
    url = f"{shown(endpoint())}/api/models/{hub_id}"
    try:
        for asked in (url, f"{url}/auth-check"):
            request = urllib.request.Request(asked, headers=headers)
            urllib.request.build_opener(_Stay).open(request, timeout=PATIENCE_S).close()
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 404 and asked == url:
            return "has no such model"
        if error.code in (401, 403):
            why = "the token's account may not read it" if token else "it wants a token (hf auth login, or HF_TOKEN)"
            return f"gives it not to everybody, or has no such model: {why} (HTTP {error.code})"
    except (OSError, ValueError, http.client.HTTPException):
        return None
    return None


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows to no other place, where the token would go too."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def _ask(url: str) -> str:
    """Empty if it answers."""
    try:
        request = urllib.request.Request(shown(url), method="HEAD", headers={"User-Agent": "promptecho"})
        urllib.request.urlopen(request, timeout=PATIENCE_S).close()
    except urllib.error.HTTPError:
        return ""
    except (http.client.HTTPException, UnicodeError):  # its own words may quote the URL
        return "no answer that is HTTP, or no URL"
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):  # a server is there; the library knows more certificates
            return ""
        if isinstance(reason, socket.gaierror):
            return "its name is not known here"
        return "no answer" if isinstance(reason, TimeoutError) else str(getattr(reason, "strerror", "") or reason)
    return ""
