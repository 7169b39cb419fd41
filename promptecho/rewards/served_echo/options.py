"""Settings of served_echo."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from promptecho.config.fields import Text
from promptecho.rewards.http.options import ServerSection


class ServedEchoSection(ServerSection):
    """Which server has the VLM, and what its tokens are. `endpoint` is the base URL up to `/v1`."""

    needed: ClassVar[tuple[str, ...]] = ("endpoint", "model", "processor")

    model: Text | None = Field(None, description="Name of the VLM at the endpoint; needed.")
    processor: Text | None = Field(
        None,
        description="Folder, or hub id, of the same model: its tokenizer and chat template say which of the server's "
        "tokens are the label's. Its weights are not loaded. `shapes`: the one that ships with the project. Needed.",
    )
    revision: Text | None = Field(None, description="Hub revision (commit) of `processor`; null: the folder as it is.")
