"""Settings of rewards that a server gives."""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import urlsplit

from pydantic import Field

from promptecho.config.fields import Count, NonNegative, Positive, Section, Text

# How a server is reached, and not what it says.
NOT_IN_DIGEST = frozenset({"endpoint", "api_key_env", "timeout_s", "outage_s", "concurrency"})


class ServerSection(Section):
    """Where a server is, and how long it is waited for. `needed`: keys that have no default that works."""

    needed: ClassVar[tuple[str, ...]] = ("endpoint",)

    endpoint: Text | None = Field(
        None,
        description="Base URL, such as `http://host:8123`; needed. An address is no part of what a training is, so "
        "that the server may move.",
    )
    api_key_env: Text | None = Field(
        None, description="Name of the environment variable that holds the server's key; null: it takes none."
    )
    timeout_s: Positive = Field(
        120.0, description="Seconds that one request may take, from its start to its last byte."
    )
    outage_s: NonNegative = Field(
        300.0, description="Seconds for which a request is made again while the server fails or does not answer."
    )
    concurrency: Count = Field(4, description="Requests at the same time, of each process.")

    @property
    def problems(self) -> dict[str, str]:
        """What is wrong with a key, without what it holds."""
        found = {key: "is missing" for key in self.needed if getattr(self, key) is None}
        parts = urlsplit(self.endpoint or "http://none")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            found["endpoint"] = "give a URL such as http://host:8123"
        elif parts.username or parts.password or parts.query or parts.fragment:
            found["endpoint"] = "holds a name, key or query; a key comes from the environment (api_key_env)"
        return found


class HttpSection(ServerSection):
    """How a server of one's own is asked for rewards."""

    reward: Text | None = Field(
        None,
        description="What the server must call itself in every answer, so that another one at its address is refused; "
        "null: whatever it says. Another value makes trainings again.",
    )
