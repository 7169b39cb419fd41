"""Whether the hub answers: asked once per process, and before a library asks it, which would try again for minutes."""

from __future__ import annotations

import functools
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


def _ask(url: str) -> str:
    """Empty if it answers."""
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "promptecho"})
    try:
        urllib.request.urlopen(request, timeout=PATIENCE_S).close()
    except urllib.error.HTTPError:
        return ""
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):  # a server is there; the library knows more certificates
            return ""
        if isinstance(reason, socket.gaierror):
            return "its name is not known here"
        return "no answer" if isinstance(reason, TimeoutError) else str(getattr(reason, "strerror", "") or reason)
    return ""
