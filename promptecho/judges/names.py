"""What a judge is called: in tables and records, and in a record's keys."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from promptecho.config.judge_kinds import judge_kind
from promptecho.config.judges import JudgeSection
from promptecho.errors import ConfigError
from promptecho.judges.keys import normal_endpoint
from promptecho.shipped import model_path


@dataclass(frozen=True)
class MessageNames:
    """What messages call whoever is asked: `who` it is, its `settings`, the key of how long it is waited for."""

    who: str
    settings: str = "the judge's settings"
    outage_key: str = "judges.outage_s"


def judge_name(settings: JudgeSection) -> str:
    """The model: what tables and records call the judge. Its address is no part of it, so that a server may move.

    Raises:
        ConfigError: the endpoint is no plain http(s) URL, or holds a password or a query other than api-version.
    """
    endpoint = normal_endpoint(settings)
    if endpoint is None:
        return settings.model
    parts = urlsplit(endpoint)
    if (
        parts.username
        or parts.password
        or parts.fragment
        or {name for name, _ in parse_qsl(parts.query)} - {"api-version"}
    ):
        raise ConfigError(
            f"endpoint of judge {settings.model}: a URL with user, password or a query other than api-version; give "
            "the key in the environment variable that api_key_env names"
        )
    if parts.path.rstrip("/").endswith("/chat/completions"):
        raise ConfigError(f"endpoint of judge {settings.model}: give it without /chat/completions, which is added")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"endpoint of judge {settings.model}: {endpoint!r} is no URL such as https://host:8000/v1")
    return settings.model


def model_identity(settings: JudgeSection) -> str:
    """What a record's key calls the model: its name, and for a folder a hash of its weights."""
    if not judge_kind(settings.kind).in_process or not Path(model_path(settings.model, "vlm")).expanduser().is_dir():
        return settings.model
    return _folder_revision(settings.model)


@cache
def _folder_revision(path: str) -> str:
    from promptecho.vlm.model import model_revision

    return model_revision(path)
